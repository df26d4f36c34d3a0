"""Runs of words as numbers: the same words in the same order give the same number.

Words are letters and digits in lower case; marks and spaces between them do not count. The
numbers hold within one process alone.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.hashing import Numbers, mix

_STEP = np.uint64(0x9E3779B97F4A7C15)


class Words(NamedTuple):
    """The words of some texts, end to end."""

    words: Numbers
    """One number a word."""
    counts: NDArray[np.int64]
    """(texts,): words of each text."""

    @property
    def owners(self) -> NDArray[np.int64]:
        """Which text each word is of."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class Runs(NamedTuple):
    """Every run of n words in some texts."""

    grams: Numbers
    starts: NDArray[np.int64]
    """Where each begins among all words."""
    owners: NDArray[np.int64]
    """Which text each is of."""


def words_of(texts: pl.Series) -> Words:
    """The words of each text."""
    lists = texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    words = lists.explode().drop_nulls()
    return Words(words.hash().to_numpy(), lists.list.len().cast(pl.Int64).to_numpy())


def runs_of(words: Words, n: int) -> Runs:
    """The runs of n words that lie within one text."""
    num = len(words.words) - n + 1
    owners = words.owners
    if num <= 0:
        return Runs(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    starts = np.flatnonzero(owners[:num] == owners[n - 1 :])
    grams = np.zeros(len(starts), np.uint64)
    for place in range(n):
        grams = grams * _STEP + words.words[starts + place]
    return Runs(mix(grams), starts, owners[starts])
