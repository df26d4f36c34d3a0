"""Shortcuts: features other than quality that predict the chosen side (PD601 to PD605).

Fewer than `MIN_PAIRS` pairs give no findings.
"""

import numpy as np
import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.profile import FEATURES
from prefdata.check.sets.found import SetFinding, about_set
from prefdata.check.sets.statistics import Estimate, area_of_counts, share
from prefdata.check.sets.tally import LENGTH, SIDES, Tally

MIN_PAIRS = 100
DECIDING = 0.9
"""Share from which a format nearly decides the label, so that PD604 is a warning."""
MAX_MODEL_ACCURACY = 0.8
MAX_POSITION_BIAS = 0.05
MAX_LABEL_RATIO = 4.0


def find_length_bias(tally: Tally, limits: CheckLimits) -> list[SetFinding]:
    """Check whether length in characters predicts the chosen side (PD601)."""
    if tally.rows < MIN_PAIRS:
        return []
    longer = _chosen_has_more(tally, LENGTH)
    if not longer.is_beyond(0.5, limits.max_bias):
        return []
    area = area_of_counts(*(tally.counts(LENGTH, side) for side in SIDES))
    message = (
        f"chosen has more characters in {_percent(longer)} of the pairs; length by itself "
        f"predicts the chosen side with an AUC of {area.value:.3f} "
        f"({area.low:.3f} to {area.high:.3f})"
    )
    return about_set("PD601", tally.rows, tally.at, message)


def find_format_bias(tally: Tally, limits: CheckLimits) -> list[SetFinding]:
    """Check whether more of a format predicts the chosen side, among pairs that differ (PD604)."""
    parts: list[str] = []
    count, decides = 0, False
    for feature in FEATURES:
        differing, _, _ = tally.of(feature)
        if differing < MIN_PAIRS:
            continue
        more = _chosen_has_more(tally, feature)
        if more.is_beyond(0.5, limits.max_bias):
            parts.append(f"{feature} in {_percent(more)} of {differing:,}")
            count = max(count, differing)
            decides |= more.is_beyond(0.5, DECIDING - 0.5)
    message = f"chosen has more {'; '.join(parts)} pairs that differ in it"
    found = about_set("PD604", count, tally.at, message) if parts else []
    return [one._replace(least="W") for one in found] if decides else found


def find_model_bias(tally: Tally, _: CheckLimits) -> list[SetFinding]:
    """Check whether the names of the two models predict the chosen side (PD602).

    Each pair is guessed by the majority of the other pairs of the same two models, so that two
    models that meet once predict nothing; one model on both sides is a random guess.
    """
    known = int(tally.games["num"].sum())
    if known < MIN_PAIRS:
        return []
    is_same = pl.col("first") == pl.col("second")
    same = int(tally.games.filter(is_same)["num"].sum())
    games = tally.games.filter(~is_same)
    won, num = (games[name].to_numpy() for name in ("won", "num"))
    right = sum(
        wins * (np.sign(2 * wins - 1 - num) + 1) / 2  # 1 if most of the others agree, 1/2 if split
        for wins in (won, num - won)
    ).sum()
    accuracy = share(float(right + same / 2), known)
    if accuracy.low <= MAX_MODEL_ACCURACY:
        return []
    message = f"the two models' names predict the chosen side in {_percent(accuracy)} of the pairs"
    return about_set("PD602", known, int(tally.games["at"].min()), message)  # type: ignore[arg-type]


def find_position_bias(tally: Tally, _: CheckLimits) -> list[SetFinding]:
    """Check whether answer A, or answer B, is chosen too often (PD603)."""
    if tally.positions < MIN_PAIRS:
        return []
    of_first = share(float(tally.chosen_first), tally.positions)
    if not of_first.is_beyond(0.5, MAX_POSITION_BIAS):
        return []
    message = f"answer A is chosen in {_percent(of_first)} of the pairs"
    return about_set("PD603", tally.positions, tally.at, message)


def find_label_imbalance(tally: Tally, desirable: int, undesirable: int) -> list[SetFinding]:
    """Check whether unpaired rows have far more of one label (PD605)."""
    fewer, more = sorted((desirable, undesirable))
    if more < MIN_PAIRS or more <= MAX_LABEL_RATIO * fewer:
        return []
    message = f"{desirable:,} rows are desirable, {undesirable:,} are not"
    return about_set("PD605", more, tally.at, message)


def _chosen_has_more(tally: Tally, feature: str) -> Estimate:
    """Return the share of pairs whose chosen side has more of a feature; ties count half."""
    pairs, more, equal = tally.of(feature)
    return share(more + equal / 2, pairs)


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
