"""Pairs that prefer the same two completions of a prompt in opposite ways."""

import polars as pl

from prefdata.records.keys import GROUP_ID, within

_SIDES = ("chosen_id", "rejected_id")


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
