"""Win rates against answers of people: §6.2 of the paper for summaries and single-turn dialogue.

    python -m pipelines.paper.win_rates.run pipelines/paper/tldr/settings.yaml

Pairs are built, the model is fine-tuned on the chosen answers unless it is already, its log-probs
are the reference, and each run is trained from it. Every method then answers held-out prompts at
each temperature, and a judge compares its answers with those of people. Each stage is a command
that a user would type, and `out/stages` has how each was made: a run that was stopped continues.
"""

import argparse
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl
import yaml
from transformers.utils.logging import disable_progress_bar

import prefdata
from dpo.artifacts.like_base import open_base
from dpo.model.load import load_config
from pipelines.commands import Invoke, RecipeError, clean_exit, in_a_process, show
from pipelines.paper.win_rates.result import WinRate, WinRates, win_rate
from pipelines.paper.win_rates.settings import Evaluation, Settings, Words, read
from prefdata.store.canonical import to_json
from prefdata.store.commit import lock_folder, make_folder, sha256_file, write_bytes

Row = dict[str, Any]
PACKAGES = ("torch", "transformers", "prefdata-dpo")
READERS = {".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet, ".csv": pl.read_csv}
TEMPLATE = "chat_template.jinja"


class Method(NamedTuple):
    """One way to answer the prompts."""

    name: str
    model: str
    examples: int = 0
    """Chosen answers that the prompt begins with."""
    words: Sequence[str] = ()
    """Further options of dpo-sample."""


class Experiment:
    """The stages, in the order of the paper."""

    def __init__(self, settings: Settings, invoke: Invoke) -> None:
        self.settings, self.out, self.invoke = settings, settings.out, invoke
        self.left_out: dict[str, int] = {}

    def run(self) -> WinRates:
        make_folder(self.out)
        with lock_folder(self.out):
            start = self._start()
            for name, changes in self.settings.runs.items():
                self._train(name, start, [*self.settings.train, *changes])
            methods = list(self._methods(start))
            rates = [
                self._rate(evaluation, method, temperature)
                for evaluation in self.settings.evaluations
                for method in methods
                for temperature in self.settings.temperatures
                if temperature > 0 or method.name != "best-of-n"  # greedy answers are all the same
            ]
            return self._write(rates)

    def _start(self) -> str:
        """Build the pairs; return the model that all runs start from, its log-probs computed."""
        model, data = self._with_template(self.settings.model), self.out / "data"
        values = json.loads(json.dumps(self.settings.build_values(model), default=str))
        config = self.out / "build.yaml"
        write_bytes(config, yaml.safe_dump(values, allow_unicode=True, sort_keys=False).encode())
        words = ["prefdata", "build", str(config)]
        self._make("build", words, data / "manifest.json", {"values": values})
        if self.settings.sft is not None:
            self._train(self.settings.start_name, model, self.settings.sft_words)
            model = str(self.out / "runs" / self.settings.start_name / "model")
        made = data / "reference" / "default" / "manifest.json"
        words = ["dpo-ref", str(data), "--model", model]
        self._make("reference", words, made, {"words": words})
        return model

    def _with_template(self, model: str) -> str:
        """Return a directory of links to a model's files, with the task's chat template."""
        template = self.settings.template
        if template is None:
            return model
        load_config(model)  # T101 if there is no such model
        source = open_base(model).folder.resolve()
        folder = self.out / "models" / model.strip("./").replace("/", "--")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in source.iterdir():
            if file.is_file() and file.name != TEMPLATE:
                (folder / file.name).symlink_to(file.resolve())
        shutil.copyfile(template, folder / TEMPLATE)
        return str(folder)

    def _train(self, name: str, start: str, changes: Words) -> None:
        words = ["dpo-train", *self.settings.train_words(start, name, *changes)]
        decides = {"words": words, "config": sha256_file(self.settings.train_config)}
        self._make(f"train-{name}", words, self.out / "runs" / name / "run.json", decides)

    def _methods(self, start: str) -> Iterator[Method]:
        yield Method(self.settings.start_name, start)
        for name in self.settings.runs:
            yield Method(name, str(self.out / "runs" / name / "model"))
        if (best := self.settings.best_of) is not None:
            words = ("--best-of", str(best.n), "--scorer", best.scorer)
            yield Method("best-of-n", start, words=words)
        if (base := self.settings.base) is not None:
            yield Method("base", self._with_template(base.model), base.examples)

    def _rate(self, name: str, method: Method, temperature: float) -> WinRate:
        """Sample answers, and judge each against that of a person."""
        place = f"{name}-{method.name}-t{temperature:g}"
        samples = self.out / "samples" / f"{place}.jsonl"
        candidates = self.out / "candidates" / f"{place}.jsonl"
        verdicts = self.out / "verdicts" / f"{place}.jsonl"
        prompts = self._write_prompts(name, method.examples)
        words = ["dpo-sample", str(prompts), "--model", method.model, "-k", "1", "-o", str(samples)]
        words += ["--temperature", str(temperature), "--text", "chat", *method.words]
        words += ["--max-new-tokens", str(self.settings.max_new_tokens)]
        words += ["--batch-size", str(self.settings.batch_size), "--dtype", self.settings.dtype]
        words += ["--seed", str(self.settings.seed)]
        decides = {"words": words, "prompts": sha256_file(prompts)}
        self._make(f"sample-{place}", words, samples, decides)
        rows = [self._candidates(row) for row in _read_rows(samples)]
        _write_rows(candidates, rows)
        words, judge = ["dpo-judge", str(candidates), "-o", str(verdicts)], self.settings.judge
        decides = {"words": [*words, *judge.decides], "candidates": sha256_file(candidates)}
        self._make(f"judge-{place}", [*words, *judge.words], verdicts, decides)
        return win_rate((name, method.name, temperature), rows, _read_rows(verdicts))

    def _candidates(self, row: Row) -> Row:
        """Return the policy's answer and that of a person, as dpo-judge reads them."""
        text = row["completions"][0]["text"]
        if self.settings.cut_at:
            text = text.partition(self.settings.cut_at)[0]
        sides = [{"text": text.strip()}, {"text": row["reference"].strip()}]
        return {"prompt": row["asked"], "completions": sides}

    def _write_prompts(self, name: str, examples: int) -> Path:
        """Write an evaluation's prompts, after examples of the train split if there are any."""
        shown = [turn for row in self._examples[:examples] for turn in row]
        rows = [
            {"prompt": [*shown, *asked], "asked": asked, "reference": reference}
            for asked, reference in self._asked(name, self.settings.evaluations[name])
        ]
        path = self.out / "prompts" / f"{name}{f'-{examples}-shot' if examples else ''}.jsonl"
        _write_rows(path, rows)
        return path

    def _asked(self, name: str, evaluation: Evaluation) -> list[tuple[list[Row], str]]:
        """Return the prompts and the answers of people."""
        if evaluation.file is None:
            found = [(row["prompt"], row["chosen"][0]["content"]) for row in self._pairs("test")]
        else:
            found = list(_column_pairs(evaluation))
        most = evaluation.max_words
        fit = [one for one in found if most is None or len(one[0][0]["content"].split()) <= most]
        self.left_out[name] = len(found) - len(fit)
        if not fit:
            problem = f"evaluation {name} has no prompt"
            raise RecipeError(evaluation.file or self.out / "data", problem, "name another file")
        step = max(1, len(fit) // evaluation.rows)
        return fit[::step][: evaluation.rows]

    def _pairs(self, split: str) -> list[Row]:
        """Return the pairs of a split whose prompt is one turn, as plain messages."""
        build = prefdata.open(self.out / "data")
        if split not in build.splits:
            return []
        return [
            {side: _plain(row[side]) for side in ("prompt", "chosen")}
            for row in build.text(split).to_pylist()
            if len(row["prompt"]) == 1
        ]

    @cached_property
    def _examples(self) -> list[list[Row]]:
        """Return prompts of the train split with their chosen answers, in a seeded order."""
        pairs = self._pairs("train")
        drawn = random.Random(self.settings.seed).sample(pairs, len(pairs))
        return [[*row["prompt"], *row["chosen"]] for row in drawn]

    def _make(self, name: str, words: Words, made: Path, decides: Row) -> None:
        """Run a command unless the file that it leaves is there; refuse one of other settings."""
        stage = self.out / "stages" / f"{name}.json"
        if made.exists():
            if not stage.is_file() or orjson.loads(stage.read_bytes()) != decides:
                problem = f"was made with other settings, which {stage} has"
                raise RecipeError(made, problem, "set them back, or name another `out`")
            return
        for folder in (stage.parent, made.parent if made.suffix == ".jsonl" else self.out):
            folder.mkdir(exist_ok=True)
        write_bytes(stage, to_json(decides))
        show(words)
        self.invoke(words)

    def _write(self, rates: list[WinRate]) -> WinRates:
        build = prefdata.open(self.out / "data")
        finals = {
            name: json.loads((self.out / "runs" / name / "run.json").read_bytes())["final"]
            for name in self.settings.runs
        }
        key = "eval/rewards/accuracies"
        result = WinRates(
            task=self.settings.task,
            rates=rates,
            left_out=self.left_out,
            pairs={split: len(build.tokens(split)) for split in build.splits},
            reward_accuracies={name: of[key] for name, of in finals.items() if key in of},
            settings=self.settings.model_dump(mode="json"),
            versions={name: version(name) for name in PACKAGES},
        )
        write_bytes(self.out / "result.json", to_json(result))
        return result


def _column_pairs(evaluation: Evaluation) -> Iterator[tuple[list[Row], str]]:
    """Yield the prompts and references of a file's two columns."""
    name, columns = str(evaluation.file), [evaluation.prompt, evaluation.reference]
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise RecipeError(name, "is not JSON Lines, Parquet or CSV", f"name a {', '.join(READERS)}")
    try:
        frame = reader(name).select(columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        problem = f"cannot be read: {str(error).splitlines()[0]}"
        raise RecipeError(name, problem, f"name a file with {' and '.join(columns)}") from error
    for prompt, reference in frame.iter_rows():
        if isinstance(prompt, str) and isinstance(reference, str):
            yield [{"role": "user", "content": prompt}], reference
        else:
            raise RecipeError(name, "has a row without both texts", "remove such rows")


def _plain(turns: list[Row]) -> list[Row]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _read_rows(path: Path) -> list[Row]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def _write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))


def table(result: WinRates) -> Iterator[str]:
    """Yield one line for each win rate."""
    for one in result.rates:
        found = "no verdict"
        if one.rate is not None:
            found = f"{one.rate:6.1%} ({one.low:.1%} to {one.high:.1%})"
        counts = f"{one.judged} judged, {one.ties} ties, {one.unjudged} unjudged"
        what = f"{one.evaluation:12}{one.method:14}T {one.temperature:<5g}"
        yield f"{what}{found}  {counts}; {one.words:.0f} words, {one.reference_words:.0f} theirs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path, help="YAML file, such as settings.yaml of tldr")
    path: Path = parser.parse_args().settings
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with clean_exit():
        settings = read(path)
        result = Experiment(settings, in_a_process).run()
    print()
    for line in table(result):
        print(line)
    print(f"{settings.out / 'result.json'} is written")


if __name__ == "__main__":
    main()
