"""What a loop has made: the model of loop.json, and its table.

python -m pipelines.loop.record schemas/loop.schema.json
"""

import json
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from rich.table import Table

from pipelines.commands import RecipeError
from pipelines.fresh_samples import Measured
from pipelines.loop.settings import LoopConfig, Stage, changed_keys, key_of_stage
from prefdata.settings import StrictModel
from prefdata.store.canonical import to_json
from prefdata.store.commit import write_bytes

NAME = "loop.json"


class StageRecord(StrictModel):
    """One finished stage."""

    hashes: dict[str, str]
    """What it made, as its own files say: sha256 of samples and verdicts; hash and content hash of
    the build's manifest; hash of the reference's manifest and of the weights behind it; fingerprint
    of the run and hash of its weights; sha256 of the figures."""
    counts: dict[str, int] = {}
    """Completions, candidates or pairs."""
    seconds: float | None
    """Seconds of the start in which it finished; null if that start was killed before it was
    recorded."""


class Round(StrictModel):
    """One round; round 0 is the first model, which is only evaluated."""

    round: int
    stages: dict[Stage, StageRecord] = {}
    figures: Measured | None = None
    """Fresh samples of held-out prompts: their score, and the KL from the first model."""


class LoopRecord(StrictModel):
    """Content of loop.json: the config, and each round's stages, hashes and figures."""

    format: Literal["loop"] = "loop"
    format_version: Literal[1] = 1
    config: LoopConfig
    rounds: list[Round] = Field(default=[])

    def round(self, number: int) -> Round:
        """Return a round; an empty one if nothing of it is finished."""
        return next((one for one in self.rounds if one.round == number), Round(round=number))

    def with_round(self, changed: Round) -> "LoopRecord":
        others = [one for one in self.rounds if one.round != changed.round]
        rounds = sorted([*others, changed], key=lambda one: one.round)
        return self.model_copy(update={"rounds": rounds})

    def write(self, out: Path) -> None:
        write_bytes(out / NAME, to_json(self))


def open_record(config: LoopConfig) -> LoopRecord:
    """Return the record of a loop that was begun in `out`, or a new one.

    Raises RecipeError if a key has changed that decides a finished stage.
    """
    path = config.out / NAME
    if not path.exists():
        return LoopRecord(config=config)
    remedy = "name another `out`, or move that file away"
    try:
        found = LoopRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecipeError(path, "is not the record of a loop", remedy) from error
    require_same(path, found, config)
    return found.model_copy(update={"config": config})


def require_same(path: Path, found: LoopRecord, config: LoopConfig) -> None:
    """Raise RecipeError with the first key whose change would contradict a finished stage."""
    last = max((one.round for one in found.rounds), default=0)
    finished = {stage for one in found.rounds for stage in one.stages}
    now, then = config.model_dump(mode="json"), found.config.model_dump(mode="json")
    for key in changed_keys(then, now):
        stage = key_of_stage(key)
        if finished and (stage is None or stage in finished):
            what = f"`{stage}` of a round is" if stage else "stages are"
            problem = f"{key} has changed, and {what} finished with {_value(then, key)}"
            raise RecipeError(path, problem, "set it back, or name another `out`")
    if config.rounds < last:
        problem = f"rounds is {config.rounds}, and round {last} is begun"
        raise RecipeError(path, problem, f"set it to {last} or more, or name another `out`")


def _value(config: object, key: str) -> str:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    text = json.dumps(config, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def table(record: LoopRecord) -> Table:
    """Return one line for each round that was evaluated."""
    found = Table(title=f"{record.config.model}, {record.config.out}", title_justify="left")
    for name in ("round", "pairs", "score", "KL, nats", "tokens", "ended", "seconds"):
        found.add_column(name, justify="right")
    for one in record.rounds:
        if (of := one.figures) is None:
            continue
        pairs = one.stages["build"].counts.get("pairs") if "build" in one.stages else None
        score = "" if of.score is None else f"{of.score:.3f} ± {of.score_se:.3f}"
        seconds = sum(stage.seconds or 0.0 for stage in one.stages.values())
        found.add_row(
            str(one.round), "" if pairs is None else f"{pairs:,}", score,
            f"{of.kl:z.2f} ± {of.kl_se:.2f}", f"{of.mean_tokens:.1f}", f"{of.share_ended:.0%}",
            f"{seconds:,.0f}",
        )  # fmt: skip
    return found


def schema() -> str:
    return json.dumps(LoopRecord.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
