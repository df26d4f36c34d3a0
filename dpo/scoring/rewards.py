"""Implicit rewards of pairs, β·(log π − log π_ref), and what they say of the pairs' labels.

Rewards are those of Eq. 5 of https://arxiv.org/abs/2305.18290, up to a constant of the prompt. The
chance that chosen wins is σ(reward of chosen − reward of rejected).
"""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from dpo.data.reference_store import Reference
from dpo.errors import UsageError
from dpo.training.metrics import TIE
from prefdata.check.sets.statistics import share
from prefdata.store.reader import Build

NUM_BINS = 10


_COLUMNS = (
    "pair_id", "line", "ordinal", "meta", "reward_chosen", "reward_rejected", "margin", "chance"
)  # fmt: skip


class Accuracy(BaseModel):
    """How often the policy prefers what the label prefers; ties count half."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    pairs: int
    accuracy: float
    low: float
    """Wilson's 95 % interval, https://doi.org/10.1080/01621459.1927.10502953."""
    high: float


class Bin(BaseModel):
    """Pairs of which the policy is as sure."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    confidence: float
    """Mean of σ(|margin|): how sure the policy is of its preference, whichever that is."""
    accuracy: float
    """How often the label agrees."""
    pairs: int


class ScoreReport(BaseModel):
    """`score.json`: what the scores of a set come to."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    format: str = "dpo-score"
    model: str
    reference: str
    beta: float
    overall: Accuracy
    by: dict[str, list[Accuracy]]
    """The same of the parts of the set, by column: `split`, `source`, and those asked for."""
    calibration: list[Bin]
    calibration_error: float
    """Mean distance of confidence and accuracy over the bins, by pairs."""


def score_pairs(
    build: Build, policy: Reference, reference: Reference, *, beta: float, subsets: Sequence[str]
) -> pl.DataFrame:
    """One row for each pair: where it is from, its rewards, their margin, the chance of chosen."""
    parts = []
    for split in build.splits:
        text = pl.DataFrame(build.text(split))
        mine, theirs = (_sums(stored, split) for stored in (policy, reference))
        if not len(text):
            continue
        rewards = beta * (mine - theirs)
        margin = rewards[:, 0] - rewards[:, 1]
        margin[np.abs(margin) <= beta * TIE] = 0.0
        parts.append(
            text.select("pair_id", "source", "line", "ordinal", "meta").with_columns(
                split=pl.lit(split),
                reward_chosen=rewards[:, 0],
                reward_rejected=rewards[:, 1],
                margin=margin,
                chance=1 / (1 + np.exp(-margin)),
            )
        )
    rows = pl.concat(parts)
    named = [pl.col("meta").str.json_path_match(f"$.{key}").alias(key) for key in subsets]
    return rows.with_columns(named).drop("meta")


def require_subsets(keys: Sequence[str]) -> None:
    """Raise C122 for a key that cannot be looked up in meta, or is a column of the scores."""
    remedy = "name a key of meta, with dots for nested ones: --by source.name"
    for key in keys:
        if key in _COLUMNS:
            raise UsageError("C122", f"--by {key}", "is a column of the scores", remedy)
        try:
            pl.Series(["{}"]).str.json_path_match(f"$.{key}")
        except pl.exceptions.ComputeError as error:
            raise UsageError("C122", f"--by {key}", "is not a path of keys", remedy) from error


def _sums(stored: Reference, split: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Log-probs of chosen and rejected, (rows, 2), nats."""
    names = ("ref_chosen_logps", "ref_rejected_logps")
    tables = stored.tables(split)
    sums = [np.stack([table[name].to_numpy() for name in names], 1) for table in tables]
    return np.concatenate([np.zeros((0, 2)), *sums]).astype(np.float64)


def summarize(
    rows: pl.DataFrame, *, model: str, reference: str, beta: float, subsets: Sequence[str]
) -> ScoreReport:
    """Accuracy with its interval, over all and by part, and calibration."""
    margins = rows["margin"].to_numpy()
    by = {
        column: [
            accuracy_of(str(name), part["margin"].to_numpy())
            for (name,), part in rows.sort(column).group_by(column, maintain_order=True)
        ]
        for column in ("split", "source", *subsets)
    }
    bins = calibrate(margins)
    error = sum(abs(one.confidence - one.accuracy) * one.pairs for one in bins) / len(margins)
    return ScoreReport(
        model=model,
        reference=reference,
        beta=beta,
        overall=accuracy_of("all", margins),
        by=by,
        calibration=bins,
        calibration_error=round(error, 6),
    )


def accuracy_of(name: str, margins: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Accuracy:
    """How often a margin is above 0.

    >>> accuracy_of("x", np.array([1.0, 2.0, 0.5, -1.0])).accuracy
    0.75
    """
    right = float(((margins > 0) + (margins == 0) / 2).sum())
    found = share(right, len(margins))
    return Accuracy(
        name=name,
        pairs=len(margins),
        accuracy=round(found.value, 6),
        low=round(found.low, 6),
        high=round(found.high, 6),
    )


def calibrate(margins: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[Bin]:
    """Bins of equally many pairs, from the least sure to the surest."""
    order = np.argsort(np.abs(margins), kind="stable")
    bins = []
    for places in np.array_split(order, min(NUM_BINS, len(order))):
        some = margins[places]
        bins.append(
            Bin(
                confidence=round(float((1 / (1 + np.exp(-np.abs(some)))).mean()), 6),
                accuracy=round(float(((some > 0) + (some == 0) / 2).mean()), 6),
                pairs=len(some),
            )
        )
    return bins


def find_suspects(rows: pl.DataFrame, most: float) -> pl.DataFrame:
    """The pairs that the policy most disagrees with, the most suspicious first.

    At most this share of all pairs, and none that the policy agrees with.
    """
    ranked = rows.filter(pl.col("margin") < 0).sort("margin", "pair_id")
    return ranked.head(math.ceil(most * len(rows)))
