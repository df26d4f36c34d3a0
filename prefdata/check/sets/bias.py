"""Shortcuts: features other than quality that predict the chosen side (PD601 to PD605).

Frames have the columns of `keys.KEYS` and of PROFILE, and `at`. Fewer than `MIN_PAIRS` pairs give
no findings.
"""

import numpy as np
import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.profile import FEATURES
from prefdata.check.sets.found import SetFinding, about_set
from prefdata.check.sets.statistics import Estimate, area_under_curve, share

MIN_PAIRS = 100
DECIDING = 0.9
"""Share from which a format nearly decides the label, so that PD604 is a warning."""
MAX_MODEL_ACCURACY = 0.8
MAX_POSITION_BIAS = 0.05
MAX_LABEL_RATIO = 4.0


def find_length_bias(frame: pl.DataFrame, limits: CheckLimits) -> list[SetFinding]:
    """Check whether length in characters predicts the chosen side (PD601)."""
    if len(frame) < MIN_PAIRS:
        return []
    chosen, rejected = (frame[f"chars_{side}"].to_numpy() for side in ("chosen", "rejected"))
    longer = _chosen_has_more(frame, "chars")
    if not longer.is_beyond(0.5, limits.max_bias):
        return []
    area = area_under_curve(chosen, rejected)
    message = (
        f"chosen has more characters in {_percent(longer)} of the pairs; length by itself "
        f"predicts the chosen side with an AUC of {area.value:.3f} "
        f"({area.low:.3f} to {area.high:.3f})"
    )
    return about_set("PD601", len(frame), frame, message)


def find_format_bias(frame: pl.DataFrame, limits: CheckLimits) -> list[SetFinding]:
    """Check whether more of a format predicts the chosen side, among pairs that differ (PD604)."""
    parts: list[str] = []
    count, decides = 0, False
    for feature in FEATURES:
        differing = frame.filter(pl.col(f"{feature}_chosen") != pl.col(f"{feature}_rejected"))
        if len(differing) < MIN_PAIRS:
            continue
        more = _chosen_has_more(differing, feature)
        if more.is_beyond(0.5, limits.max_bias):
            parts.append(f"{feature} in {_percent(more)} of {len(differing):,}")
            count = max(count, len(differing))
            decides |= more.is_beyond(0.5, DECIDING - 0.5)
    message = f"chosen has more {'; '.join(parts)} pairs that differ in it"
    found = about_set("PD604", count, frame, message) if parts else []
    return [one._replace(least="W") for one in found] if decides else found


def find_model_bias(frame: pl.DataFrame, _: CheckLimits) -> list[SetFinding]:
    """Check whether the names of the two models predict the chosen side (PD602).

    Each pair is guessed by the majority of the other pairs of the same two models, so that two
    models that meet once predict nothing; one model on both sides is a random guess.
    """
    known = frame.filter(
        pl.col("model_chosen").is_not_null() & pl.col("model_rejected").is_not_null()
    )
    if len(known) < MIN_PAIRS:
        return []
    one, other = (pl.col(f"model_{side}").cast(pl.String) for side in ("chosen", "rejected"))
    met = known.select(
        first=pl.min_horizontal(one, other),
        second=pl.max_horizontal(one, other),
        won=one < other,
        same=one == other,
    )
    games = (
        met.filter(~pl.col("same")).group_by("first", "second").agg(pl.len(), pl.col("won").sum())
    )
    won, num = (games[name].to_numpy().astype(np.int64) for name in ("won", "len"))
    right = sum(
        wins * (np.sign(2 * wins - 1 - num) + 1) / 2  # 1 if most of the others agree, 1/2 if split
        for wins in (won, num - won)
    ).sum()
    accuracy = share(float(right + met["same"].sum() / 2), len(known))
    if accuracy.low <= MAX_MODEL_ACCURACY:
        return []
    message = f"the two models' names predict the chosen side in {_percent(accuracy)} of the pairs"
    return about_set("PD602", len(known), known, message)


def find_position_bias(frame: pl.DataFrame, _: CheckLimits) -> list[SetFinding]:
    """Check whether answer A, or answer B, is chosen too often (PD603)."""
    first = frame["chosen_first"].drop_nulls()
    if len(first) < MIN_PAIRS:
        return []
    of_first = share(float(first.sum()), len(first))
    if not of_first.is_beyond(0.5, MAX_POSITION_BIAS):
        return []
    message = f"answer A is chosen in {_percent(of_first)} of the pairs"
    return about_set("PD603", len(first), frame, message)


def find_label_imbalance(frame: pl.DataFrame, desirable: int, undesirable: int) -> list[SetFinding]:
    """Check whether unpaired rows have far more of one label (PD605)."""
    fewer, more = sorted((desirable, undesirable))
    if more < MIN_PAIRS or more <= MAX_LABEL_RATIO * fewer:
        return []
    message = f"{desirable:,} rows are desirable, {undesirable:,} are not"
    return about_set("PD605", more, frame, message)


def _chosen_has_more(frame: pl.DataFrame, what: str) -> Estimate:
    """Return the share of pairs whose chosen side has more of a feature; ties count half."""
    chosen, rejected = (frame[f"{what}_{side}"].cast(pl.Int64) for side in ("chosen", "rejected"))
    wins = int((chosen > rejected).sum()) + int((chosen == rejected).sum()) / 2
    return share(wins, len(frame))


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
