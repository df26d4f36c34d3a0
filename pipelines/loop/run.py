"""From prompts to a better model: sample, label, build, reference and train, N times.

    python -m pipelines.loop.run pipelines/loop/loop.yaml

Each stage is a command that a user would type, and leaves its own manifest. A loop that was
stopped at any point continues there; loop.json has what each stage made.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from dpo import SampleConfig
from dpo.sampling.files import read_prompts
from pipelines.commands import Invoke, RecipeError, clean_exit, in_a_process, show
from pipelines.fresh_samples import Evaluator, Measured
from pipelines.loop import rounds
from pipelines.loop.record import LoopRecord, StageRecord, open_record, table
from pipelines.loop.rounds import RoundFiles
from pipelines.loop.settings import STAGES, LoopConfig, Stage, read
from prefdata.store.canonical import to_json
from prefdata.store.commit import lock_folder, make_folder, sha256_file, write_bytes


class Work(NamedTuple):
    """One kind of stage: what makes it, and what its own files say of it."""

    make: Callable[[RoundFiles, Invoke], None]
    record: Callable[[RoundFiles], StageRecord]
    made: Callable[[RoundFiles], Path]
    """The file that is there only once the stage is finished."""


class Loop:
    """The rounds of one config, and the record that grows with each stage."""

    def __init__(self, config: LoopConfig, invoke: Invoke) -> None:
        self.config, self.invoke = config, invoke

    def run(self) -> LoopRecord:
        """Make every stage that is not finished, in order."""
        make_folder(self.config.out)
        with lock_folder(self.config.out):
            self.record = open_record(self.config)
            self._stage(RoundFiles(self.config, 0), "evaluate")
            for number in range(1, self.config.rounds + 1):
                for stage in STAGES:
                    if stage != "reference" or self.config.reference != "none":
                        self._stage(RoundFiles(self.config, number), stage)
            self.record.write(self.config.out)  # the config may have more rounds, or another server
        return self.record

    def _stage(self, files: RoundFiles, stage: Stage) -> None:
        """Make one stage, unless its own files are there and are those of the record."""
        work, before = WORK[stage], self.record.round(files.number)
        known = before.stages.get(stage)
        is_there = work.made(files).exists()
        if known is not None and is_there and work.record(files).hashes == known.hashes:
            return
        files.folder.mkdir(exist_ok=True)
        started = time.perf_counter()
        work.make(files, self.invoke)
        found = work.record(files)
        if known is not None and found.hashes != known.hashes:
            names = ", ".join(
                n for n, value in found.hashes.items() if known.hashes.get(n) != value
            )
            problem = f"is not what later stages were made of: its {names} differs from loop.json"
            raise RecipeError(work.made(files), problem, "restore it, or name another `out`")
        seconds = None if is_there else time.perf_counter() - started
        finished = found.model_copy(update={"seconds": known.seconds if known else seconds})
        changed = before.model_copy(update={"stages": {**before.stages, stage: finished}})
        if stage == "evaluate":
            figures = Measured.model_validate(rounds.read_json(files.figures)["figures"])
            changed = changed.model_copy(update={"figures": figures})
        self.record = self.record.with_round(changed)
        self.record.write(self.config.out)


def _sample(files: RoundFiles, invoke: Invoke) -> None:
    rounds.write_prompts(files)
    decides = rounds.sample_decides(files)
    if not rounds.begin(files.folder / "sample.json", decides, files.samples):
        _run(rounds.sample_words(files), invoke)


def _label(files: RoundFiles, invoke: Invoke) -> None:
    rounds.write_candidates(files)
    decides = rounds.label_decides(files)
    if not rounds.begin(files.folder / "label.json", decides, files.verdicts):
        _run(rounds.label_words(files), invoke)


def _build(files: RoundFiles, invoke: Invoke) -> None:
    _run(rounds.build_words(files), invoke)


def _reference(files: RoundFiles, invoke: Invoke) -> None:
    _run(rounds.reference_words(files), invoke)


def _train(files: RoundFiles, invoke: Invoke) -> None:
    _run(rounds.train_words(files), invoke)


def _evaluate(files: RoundFiles, _invoke: Invoke) -> None:
    """Measure the model of a round on held-out prompts, unless its figures are there."""
    config, how = files.config, files.config.evaluate
    decides = {
        **how.model_dump(), "scorer": config.scorer, "text": config.text, "seed": config.seed,
        "max_new_tokens": config.max_new_tokens, "batch_size": config.batch_size,
        "held_out": sha256_file(config.held_out), "weights": rounds.weights_of(files.model),
    }  # fmt: skip
    if files.figures.exists() and rounds.read_json(files.figures)["decides"] == decides:
        return
    rows = read_prompts(config.held_out)
    step = max(1, len(rows) // (how.num_prompts or len(rows)))
    prompts = [row.prompt for row in rows[::step][: how.num_prompts]]
    sampling = SampleConfig(
        k=how.k, text=config.text, max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size, seed=config.seed,
    )  # fmt: skip
    print(f"\nround {files.number}: {files.model} on {len(prompts)} held-out prompts", flush=True)
    found = Evaluator(config.model, config.scorer, prompts, sampling).measure(files.model)
    write_bytes(files.figures, to_json({"decides": decides, "figures": found}))


def _run(words: list[str], invoke: Invoke) -> None:
    show(words)
    invoke(words)


WORK: dict[Stage, Work] = {
    "sample": Work(_sample, rounds.samples_record, lambda files: files.samples),
    "label": Work(_label, rounds.verdicts_record, lambda files: files.verdicts),
    "build": Work(_build, rounds.build_record, lambda files: files.data / "manifest.json"),
    "reference": Work(
        _reference, rounds.reference_record,
        lambda files: files.data / "reference" / "default" / "manifest.json",
    ),
    "train": Work(_train, rounds.train_record, lambda files: files.run / "run.json"),
    "evaluate": Work(_evaluate, rounds.figures_record, lambda files: files.figures),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="YAML file of a loop, such as loop.yaml")
    path: Path = parser.parse_args().config
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with clean_exit():
        record = Loop(read(path), in_a_process).run()
    Console().print(table(record))
    last = RoundFiles(record.config, record.config.rounds)
    print(f"{record.config.out / 'loop.json'} is written; the model is {last.model}")


if __name__ == "__main__":
    main()
