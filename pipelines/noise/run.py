"""What checking is worth: training on pairs with planted noise, raw and cleaned, and without it.

    python -m pipelines.noise.run [--settings FILE]

Each stage is a command that a user would type. A run that was stopped continues with the seed and
the set that it was at.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import orjson
import yaml
from pydantic import Field, PositiveInt

import prefdata
from pipelines.commands import Invoke, clean_exit, in_a_process, read_config, show
from pipelines.noise.plant import Planted, Row, folds, plant, read_pairs
from pipelines.noise.result import Arm, Result, Trained, summarize
from prefdata.config import AnyPath
from prefdata.settings import StrictModel
from prefdata.store.canonical import to_json
from prefdata.store.commit import write_bytes

HERE = Path(__file__).parent
Share = Annotated[float, Field(ge=0, lt=1)]
OFF = {"severity": {"PD402": "off"}}
NEAR = {
    "severity": {"PD402": "E", "PD502": "I"},  # all prompts share one instruction
    "near_duplicates": {"unit": "pair", "words": 3},
}


class Settings(StrictModel):
    """Sizes and noise of one experiment."""

    model: str
    """Model that is trained; itself the reference."""
    pairs: AnyPath
    """JSON Lines of ranked completions, as dpo-sample writes them; best against worst is a pair."""
    out: AnyPath
    held_out: PositiveInt
    """Pairs with true labels that no run trains on."""
    flipped: Share
    """Share of the training pairs whose label is swapped."""
    copied: Share
    """Share of the training pairs that get near-copies."""
    copies: Annotated[int, Field(ge=0, le=8)]
    """Near-copies of each of these."""
    suspects: Share
    """Maximum share of a fold that is left out as suspects."""
    train: dict[str, Any]
    """Keys of a training config (docs/config-train.md), the same for all runs."""
    seeds: Annotated[list[int], Field(min_length=2, max_length=8)]
    """Seeds of flips, copies, folds and the order of pairs."""


def read(path: Path) -> Settings:
    return read_config(Settings, path, "pipelines/noise/run.py")


class Experiment:
    """The runs of all seeds."""

    def __init__(self, settings: Settings, invoke: Invoke) -> None:
        self.settings, self.invoke = settings, invoke

    def run(self) -> Result:
        settings, runs = self.settings, []
        for seed in settings.seeds:
            folder = settings.out / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            planted = plant(read_pairs(settings.pairs), settings, seed)
            held_out = _write(folder / "held_out.jsonl", planted.held_out)
            runs += [
                self._trained(folder, arm, planted, held_out, seed)
                for arm in ("raw", "cleaned", "true")
            ]
        result = summarize(runs, settings.model_dump(mode="json"))
        write_bytes(settings.out / "result.json", to_json(result))
        return result

    def _trained(self, at: Path, arm: Arm, planted: Planted, held_out: str, seed: int) -> Trained:
        """Return the outcome of one run, which is trained unless it is there."""
        done = at / f"{arm}.json"
        if not done.exists():
            rows = planted.true if arm == "true" else planted.noisy
            file = _write(at / f"{arm}.jsonl", rows)
            checks: dict[str, Any] = OFF
            if arm == "cleaned":
                checks = NEAR | {"exclude": self._suspects(at, rows, seed)}
            summary = self._train(at / arm, {"train": [file], "test": [held_out]}, checks, seed)
            found = prefdata.open(at / arm / "data").text("train").to_pylist()
            flipped = sum("flipped" in orjson.loads(row["meta"])["meta"] for row in found)
            prompts = {orjson.dumps(row["prompt"]) for row in found}
            outcome = Trained(
                arm=arm, seed=seed, accuracy=summary["final"]["eval/rewards/accuracies"],
                pairs=len(found), flipped=flipped, copies=len(found) - len(prompts),
            )  # fmt: skip
            write_bytes(done, to_json(outcome))
            shutil.rmtree(at / arm)  # gigabytes; the outcome is what is kept
        return Trained.model_validate_json(done.read_bytes())

    def _suspects(self, at: Path, rows: list[Row], seed: int) -> list[str]:
        """Return files of pairs whose label is contradicted by a policy of the other half."""
        halves = folds(rows)
        files = [_write(at / f"fold-{n}.jsonl", half) for n, half in enumerate(halves)]
        found = []
        for n, file in enumerate(files):
            scores = at / f"scores-{n}"
            if not (scores / "score.json").exists():
                folder = at / f"without-{n}"
                self._train(folder, {"train": [files[1 - n]]}, NEAR, seed)
                self._command("dpo-score", str(folder / "run" / "model"), file,
                              "--reference", self.settings.model, "-o", str(scores),
                              "--suspects", str(self.settings.suspects))  # fmt: skip
                shutil.rmtree(folder)
            found.append(str(scores / "suspects.jsonl"))
        return found

    def _train(self, folder: Path, inputs: Any, checks: dict[str, Any], seed: int) -> Any:
        """Build, compute the reference and train; return the run's summary."""
        folder.mkdir(exist_ok=True)
        data, run, model = folder / "data", folder / "run", self.settings.model
        build = {"inputs": inputs, "tokenizer": model, "out": str(data), "test_fraction": 0.0}
        train = {"model": model, "data": str(data), "out": str(run), "seed": seed}
        self._command("prefdata", "build", _write_yaml(folder / "build.yaml", build | checks))
        self._command("dpo-ref", str(data), "--model", model)
        settings = {"eval_split": "test" if "test" in inputs else None, **self.settings.train}
        self._command("dpo-train", _write_yaml(folder / "train.yaml", settings | train))
        return json.loads((run / "run.json").read_bytes())

    def _command(self, *words: str) -> None:
        show(words)
        self.invoke(words)


def _write(path: Path, rows: list[Row]) -> str:
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return str(path)


def _write_yaml(path: Path, values: dict[str, Any]) -> str:
    write_bytes(path, yaml.safe_dump(values, sort_keys=False).encode())
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml")
    path: Path = parser.parse_args().settings
    with clean_exit():
        settings = read(path)
        result = Experiment(settings, in_a_process).run()
    for arm, mean in result.accuracy.items():
        print(f"{arm:8} held-out accuracy {mean.value:.1%} ± {mean.half_width:.1%}")
    worth = result.cleaned_minus_raw
    print(f"cleaned − raw, by seed: {worth.value:+.1%} ± {worth.half_width:.1%}")
    print(f"{settings.out / 'result.json'} is written")


if __name__ == "__main__":
    main()
