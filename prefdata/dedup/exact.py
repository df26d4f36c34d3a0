"""Pairs that occur twice, and pairs that contradict each other, found by their keys."""

import polars as pl

from prefdata.records.keys import GROUP_ID, PAIR_ID, within

_SIDES = ("chosen_id", "rejected_id")


def find_copies(keys: pl.DataFrame) -> pl.DataFrame:
    """Find pairs that occur earlier: `at` and `kept`, row indices in `keys` (PD401).

    The first pair in the order of the inputs is kept.
    `keys` has rows of KEYS in the order of the inputs; with `split`, pairs are compared only
    within each split.
    """
    key = within(keys, PAIR_ID)
    places = keys.select(key).with_row_index("at")
    first = places.with_columns(kept=pl.col("at").first().over(key))
    return first.filter(pl.col("kept") != pl.col("at")).select("at", "kept")


def find_contradictions(keys: pl.DataFrame) -> pl.Series:
    """Return the row indices in `keys` of every pair of each contradiction (PD403).

    Pairs of one prompt are compared whole: (x, a > b) contradicts (x, b > a). With `split`, pairs
    are compared only within each split.
    """
    group = within(keys, GROUP_ID)
    places = keys.select(*group, *_SIDES).with_row_index("at")
    several = places.filter(pl.len().over(group) > 1)
    swapped = several.select(*group, chosen_id="rejected_id", rejected_id="chosen_id").unique()
    against = several.join(swapped, on=[*group, *_SIDES], how="semi")
    return against["at"].sort()
