"""Implicit rewards of pairs, β·(log π − log π_ref), and how they agree with the labels.

Rewards are those of Eq. 5 of https://arxiv.org/abs/2305.18290, up to a constant per prompt. The
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


_OF_TEXT = ("pair_id", "source", "line", "ordinal", "meta")


class Accuracy(BaseModel):
    """Share of pairs in which the policy agrees with the label; ties count half."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    pairs: int
    accuracy: float
    low: float
    """Lower end of Wilson's 95 % interval, https://doi.org/10.1080/01621459.1927.10502953."""
    high: float


class Bin(BaseModel):
    """Pairs of similar policy confidence."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    confidence: float
    """Mean of σ(|margin|): how sure the policy is of its preference, right or wrong."""
    accuracy: float
    """Share of pairs whose label agrees with the policy."""
    pairs: int


class ScoreReport(BaseModel):
    """`score.json`: summary of the scores of a set."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    format: str = "dpo-score"
    model: str
    reference: str
    beta: float
    overall: Accuracy
    by: dict[str, list[Accuracy]]
    """Accuracy of parts of the set, by column: `split`, `source`, and those asked for."""
    calibration: list[Bin]
    calibration_error: float
    """Mean distance between confidence and accuracy over the bins, weighted by pairs."""


def score_pairs(
    build: Build, policy: Reference, reference: Reference, *, beta: float, subsets: Sequence[str]
) -> pl.DataFrame:
    """Return one row per pair: its source, rewards, margin, and the chance that chosen wins."""
    parts = []
    for split in build.splits:
        text = pl.DataFrame(build.text(split, _OF_TEXT))
        mine, theirs = (_sums(stored, split) for stored in (policy, reference))
        if not len(text):
            continue
        rewards = beta * (mine - theirs)
        margin = rewards[:, 0] - rewards[:, 1]
        margin[np.abs(margin) <= beta * TIE] = 0.0
        parts.append(
            text.select(_OF_TEXT).with_columns(
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
    """Raise C122 for a key that is not a path in meta, or is a column of the scores."""
    remedy = "name a key of meta, with dots for nested ones: --by source.name"
    for key in keys:
        if key in _COLUMNS:
            raise UsageError("C122", f"--by {key}", "is a column of the scores", remedy)
        try:
            pl.Series(["{}"]).str.json_path_match(f"$.{key}")
        except pl.exceptions.ComputeError as error:
            raise UsageError("C122", f"--by {key}", "is not a path of keys", remedy) from error


def _sums(stored: Reference, split: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return log-probs of chosen and rejected, (rows, 2), in nats."""
    names = ("ref_chosen_logps", "ref_rejected_logps")
    tables = stored.tables(split)
    sums = [np.stack([table[name].to_numpy() for name in names], 1) for table in tables]
    return np.concatenate([np.zeros((0, 2)), *sums]).astype(np.float64)


def summarize(
    rows: pl.DataFrame, *, model: str, reference: str, beta: float, subsets: Sequence[str]
) -> ScoreReport:
    """Return accuracy with its interval, overall and by part, and calibration."""
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
    """Return the share of margins above 0; a margin of 0 counts half.

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
    """Return bins of equally many pairs, from the least to the most confident."""
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
    """Return the pairs that the policy most disagrees with, the most suspicious first.

    At most the share `most` of all pairs, and none that the policy agrees with.
    """
    ranked = rows.filter(pl.col("margin") < 0).sort("margin", "pair_id")
    return ranked.head(math.ceil(most * len(rows)))
