"""Exact duplicates: the first pair in the order of the inputs is kept."""

import polars as pl

from prefdata.records.keys import PAIR_ID, within


def find_copies(keys: pl.DataFrame) -> pl.DataFrame:
    """Find pairs that occur earlier: `at` and `kept`, row indices in `keys` (PD401).

    `keys` has rows of KEYS in the order of the inputs; with `split`, pairs are compared only
    within each split.
    """
    key = within(keys, PAIR_ID)
    places = keys.select(key).with_row_index("at")
    first = places.with_columns(kept=pl.col("at").first().over(key))
    return first.filter(pl.col("kept") != pl.col("at")).select("at", "kept")
