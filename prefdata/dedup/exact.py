"""Equal pairs: the first in the order of the inputs stays."""

import polars as pl

from prefdata.records.keys import PAIR_ID, within


def find_copies(keys: pl.DataFrame) -> pl.DataFrame:
    """Which pairs are there already: `at` and `kept`, places in `keys` (PD401).

    `keys` has rows of KEYS in the order of the inputs; with `split`, each split is looked at by
    itself.
    """
    key = within(keys, PAIR_ID)
    places = keys.select(key).with_row_index("at")
    first = places.with_columns(kept=pl.col("at").first().over(key))
    return first.filter(pl.col("kept") != pl.col("at")).select("at", "kept")
