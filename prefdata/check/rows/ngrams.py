"""Word n-grams as hashes: the same words in the same order give the same number.

Words are runs of letters and digits in lower case; punctuation and spaces do not count. The
hashes are stable only within one process.
"""

import numpy as np
import polars as pl

from prefdata.arrow import Ragged, from_lengths, positions
from prefdata.hashing import chain, mix


def words_of(texts: pl.Series) -> Ragged:
    """Split each text into words and hash them."""
    lists = texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    words = lists.explode().drop_nulls()
    return from_lengths(words.hash().to_numpy(), lists.list.len().cast(pl.Int64).to_numpy())


def runs_of(words: Ragged, n: int) -> Ragged:
    """Return the hashes of the runs of n words within each text."""
    counts = np.maximum(words.lengths - n + 1, 0)
    chained = chain(words.values, n)
    return from_lengths(mix(chained[positions(words.offsets[:-1], counts)]), counts)
