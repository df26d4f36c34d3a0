"""Outcome of the noise experiment: held-out accuracy of the three sets, with intervals.

python -m pipelines.noise.result schemas/noise.schema.json
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat

from pipelines.paper.sentiment.result import T_975

Arm = Literal["raw", "cleaned", "true"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Trained(Part):
    """One run of one seed."""

    arm: Arm
    """`raw`: with the noise. `cleaned`: after prefdata's near-duplicates and dpo-score's suspects.
    `true`: without noise."""
    seed: int
    accuracy: float
    """Share of the held-out pairs whose truly chosen side has the higher reward."""
    pairs: int
    """Pairs that it was trained on."""
    flipped: int
    """Pairs of these whose label is swapped."""
    copies: int
    """Pairs beyond the first of each prompt: all of them are near-copies."""


class Mean(Part):
    """A mean over seeds with its 95 % interval by Student's t."""

    value: float
    half_width: NonNegativeFloat
    """Half of the interval's width."""


class Result(Part):
    """Outcome of the experiment."""

    accuracy: dict[Arm, Mean]
    cleaned_minus_raw: Mean
    """What cleaning is worth: difference of the two runs of each seed."""
    true_minus_cleaned: Mean
    """What cleaning leaves to gain."""
    runs: list[Trained]
    settings: dict[str, Any]


def summarize(runs: Sequence[Trained], settings: dict[str, Any]) -> Result:
    """Return means and paired differences over seeds, of which there are two or more."""
    by_arm: dict[Arm, list[float]] = {
        arm: [one.accuracy for one in sorted(runs, key=lambda one: one.seed) if one.arm == arm]
        for arm in ("raw", "cleaned", "true")
    }
    return Result(
        accuracy={arm: _mean(values) for arm, values in by_arm.items()},
        cleaned_minus_raw=_difference(by_arm["cleaned"], by_arm["raw"]),
        true_minus_cleaned=_difference(by_arm["true"], by_arm["cleaned"]),
        runs=list(runs),
        settings=settings,
    )


def _difference(mine: list[float], theirs: list[float]) -> Mean:
    return _mean([a - b for a, b in zip(mine, theirs, strict=True)])


def _mean(values: list[float]) -> Mean:
    error = statistics.stdev(values) / len(values) ** 0.5
    return Mean(value=statistics.mean(values), half_width=T_975[len(values)] * error)


def schema() -> str:
    return json.dumps(Result.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
