"""Accuracy of a policy's implicit reward on a benchmark of reward models, by subset.

python -m pipelines.paper.reward.result schemas/reward.schema.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from dpo.scoring.rewards import Accuracy, accuracy_of


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Subset(Part):
    """Accuracies with Wilson's 95 % intervals; a margin of 0 counts half."""

    pairs: Accuracy
    """Share of pairs whose chosen answer has the higher reward."""
    rows: Accuracy
    """Share of rows whose right answers all have a higher reward than all wrong ones: what
    RewardBench 2 counts. Equal to `pairs` where a row has two answers."""


class RewardResult(Part):
    """Outcome of one benchmark."""

    overall: Subset
    by: dict[str, Subset]
    left_out: NonNegativeInt
    """Rows that gave no pair; `OUT/scores/data` has each with its reason."""
    settings: dict[str, Any]


def summarize(
    scores: pl.DataFrame, by: str, *, left_out: int, settings: dict[str, Any]
) -> RewardResult:
    """Return the accuracies of dpo-score's `scores.parquet`, overall and by a column."""
    parts = scores.sort(by, nulls_last=True).group_by(by, maintain_order=True)
    return RewardResult(
        overall=_subset("all", scores),
        by={str(name): _subset(str(name), part) for (name,), part in parts},
        left_out=left_out,
        settings=settings,
    )


def _subset(name: str, scores: pl.DataFrame) -> Subset:
    least = scores.group_by("source", "line").agg(pl.col("margin").min())
    found = (accuracy_of(name, one["margin"].to_numpy()) for one in (scores, least))
    return Subset(pairs=next(found), rows=next(found))


def schema() -> str:
    return json.dumps(RewardResult.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
