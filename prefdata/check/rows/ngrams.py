"""Word n-grams as hashes: the same words in the same order give the same number.

Words are runs of letters and digits in lower case; punctuation and spaces do not count. The
hashes are stable only within one process.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.hashing import Numbers, mix

_STEP = np.uint64(0x9E3779B97F4A7C15)


class Words(NamedTuple):
    """Words of texts, concatenated."""

    words: Numbers
    """One hash per word."""
    counts: NDArray[np.int64]
    """(texts,): number of words of each text."""

    @property
    def owners(self) -> NDArray[np.int64]:
        """Return the text index of each word."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class Runs(NamedTuple):
    """Every run of n words in texts."""

    grams: Numbers
    starts: NDArray[np.int64]
    """Index of each run's first word among all words."""
    owners: NDArray[np.int64]
    """Text index of each run."""


def words_of(texts: pl.Series) -> Words:
    """Split each text into words and hash them."""
    lists = texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    words = lists.explode().drop_nulls()
    return Words(words.hash().to_numpy(), lists.list.len().cast(pl.Int64).to_numpy())


def runs_of(words: Words, n: int) -> Runs:
    """Return the runs of n words within each text."""
    num = len(words.words) - n + 1
    owners = words.owners
    if num <= 0:
        return Runs(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    starts = np.flatnonzero(owners[:num] == owners[n - 1 :])
    grams = np.zeros(len(starts), np.uint64)
    for place in range(n):
        grams = grams * _STEP + words.words[starts + place]
    return Runs(mix(grams), starts, owners[starts])
