"""Win rates of an experiment, with intervals.

python -m pipelines.paper.win_rates.result schemas/win-rates.schema.json
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from prefdata.check.sets.statistics import share


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WinRate(Part):
    """Share of prompts whose answer by a policy is judged better than that of a person."""

    evaluation: str
    method: str
    temperature: float
    rate: float | None
    """A tie counts half. Null if no prompt has a readable verdict."""
    low: float | None
    """Ends of Wilson's 95 % interval over the prompts."""
    high: float | None
    judged: NonNegativeInt
    """Prompts with a readable verdict."""
    ties: NonNegativeInt
    unjudged: NonNegativeInt
    """Prompts whose verdict is unreadable, or whose answer no build reads (R204)."""
    words: float
    """Mean length of the policy's answers: judges may prefer longer ones."""
    reference_words: float


class WinRates(Part):
    """Outcome of an experiment."""

    task: str
    rates: list[WinRate]
    left_out: dict[str, NonNegativeInt]
    """Prompts of each evaluation that are longer than its `max_words`."""
    pairs: dict[str, NonNegativeInt]
    """Pairs of each split of the build."""
    reward_accuracies: dict[str, float]
    """For each run with a reference, the share of test pairs whose chosen side has the higher
    implicit reward."""
    settings: dict[str, Any]
    versions: dict[str, str]


def win_rate(
    place: tuple[str, str, float],
    candidates: Sequence[dict[str, Any]],
    verdicts: Sequence[dict[str, Any]],
) -> WinRate:
    """Return the win rate of the first completion of each row over the second."""
    ranks = [[one["rank"] for one in row["completions"]] for row in verdicts]
    outcomes = [(a < b) + (a == b) / 2 for a, b in ranks if None not in (a, b)]
    found = share(sum(outcomes), len(outcomes)) if outcomes else None
    mine, theirs = ([row["completions"][at]["text"] for row in candidates] for at in (0, 1))
    evaluation, method, temperature = place
    return WinRate(
        evaluation=evaluation, method=method, temperature=temperature,
        rate=found and found.value, low=found and found.low, high=found and found.high,
        judged=len(outcomes), ties=outcomes.count(0.5),
        unjudged=len(candidates) - len(outcomes),
        words=_mean_words(mine), reference_words=_mean_words(theirs),
    )  # fmt: skip


def _mean_words(texts: Sequence[str]) -> float:
    return statistics.mean(len(text.split()) for text in texts)


def schema() -> str:
    return json.dumps(WinRates.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
