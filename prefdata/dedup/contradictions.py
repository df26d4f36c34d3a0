"""Pairs that prefer the same two completions of a prompt in opposite ways."""

import polars as pl

from prefdata.keys import GROUP

_SIDES = ("chosen_id", "rejected_id")


def find_contradictions(keys: pl.DataFrame) -> pl.Series:
    """Places in `keys` of every pair of each contradiction (PD403).

    Pairs of one prompt are compared whole: (x, a > b) stands against (x, b > a).
    """
    places = keys.select(*GROUP, *_SIDES).with_row_index("at")
    several = places.filter(pl.len().over(GROUP) > 1)
    swapped = several.select(*GROUP, chosen_id="rejected_id", rejected_id="chosen_id").unique()
    against = several.join(swapped, on=[*GROUP, *_SIDES], how="semi")
    return against["at"].sort()
