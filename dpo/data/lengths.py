"""Numbers of rows by length, and the rows of a length, in passes over the shards' offsets.

Twelve bytes a row are read, a tenth of a second for ten million of them, and nothing a row is kept.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
"""Tokens of prompt, chosen and rejected of each row, (rows, 3)."""
Counts = NDArray[np.int64]
"""Rows by length: `counts[n]` of them have n tokens."""
Measure = Callable[[Lengths], NDArray[np.int64]]


class Wanted(NamedTuple):
    """A row by its length: the k-th, from 0, of those with it."""

    length: int
    place: int


class LengthCounts(NamedTuple):
    """Counts of a split by each measure."""

    pairs: Counts
    longest: Counts
    texts: Counts

    @classmethod
    def of(cls, lengths: Lengths) -> "LengthCounts":
        found = (np.bincount(measure(lengths)) for measure in (of_pair, of_longest, of_texts))
        return cls(*(counts.astype(np.int64) for counts in found))

    def plus(self, other: "LengthCounts") -> "LengthCounts":
        """Return the counts of both."""
        return LengthCounts(*(add_counts(*both) for both in zip(self, other, strict=True)))


def of_pair(lengths: Lengths) -> NDArray[np.int64]:
    """Return the tokens of each row: prompt once, chosen and rejected, (rows,)."""
    sizes: NDArray[np.int64] = lengths[:, 0] + lengths[:, 1] + lengths[:, 2]
    return sizes


def of_longest(lengths: Lengths) -> NDArray[np.int64]:
    """Return the tokens of each row's prompt and longer completion, (rows,)."""
    longest: NDArray[np.int64] = lengths[:, 0] + np.maximum(lengths[:, 1], lengths[:, 2])
    return longest


def of_texts(lengths: Lengths) -> NDArray[np.int64]:
    """Return the tokens of each prompt with each of its completions, (2 · rows,)."""
    return np.concatenate([lengths[:, 0] + lengths[:, 1], lengths[:, 0] + lengths[:, 2]])


def add_counts(*counts: Counts) -> Counts:
    """Return the sum of counts, which may end at different lengths.

    >>> add_counts(np.array([0, 1]), np.array([2])).tolist()
    [2, 1]
    """
    total = np.zeros(max(map(len, counts), default=0), np.int64)
    for some in counts:
        total[: len(some)] += some
    return total


def of_rank(counts: Counts, rank: int) -> Wanted:
    """Return the row of a rank, from 0, in ascending order of length, then of rows.

    >>> of_rank(np.array([0, 2, 0, 3]), 3)
    Wanted(length=3, place=1)
    """
    below = np.cumsum(counts)
    length = int(np.searchsorted(below, rank, side="right"))
    return Wanted(length, rank - int(below[length] - counts[length]))


def costliest(counts: Counts, *, budget: int, most: int) -> list[Wanted]:
    """Return the longest, then repeatedly the longest other that still fits, at most `most`.

    Of equal ones the last comes first.

    >>> [one.length for one in costliest(np.bincount([3, 9, 4, 2]), budget=15, most=8)]
    [9, 4, 2]
    """
    present = np.flatnonzero(counts)
    at, left = len(present) - 1, int(counts[present[-1]])
    found, room = [Wanted(int(present[at]), left - 1)], budget - int(present[at])
    left -= 1
    while len(found) < most:
        fits = int(np.searchsorted(present, room, side="right")) - 1
        if fits < at or not left:
            at = min(fits, at - (not left))
            left = int(counts[present[at]]) if at >= 0 else 0
        if at < 0:
            break
        left -= 1
        found.append(Wanted(int(present[at]), left))
        room -= int(present[at])
    return found


class Finder:
    """Search for rows by length in lengths that come shard by shard."""

    def __init__(self, measure: Measure, wanted: Sequence[Wanted]) -> None:
        self._measure, self._wanted = measure, wanted
        self._seen = dict.fromkeys((one.length for one in wanted), 0)
        self.rows: dict[Wanted, int] = {}

    @property
    def is_done(self) -> bool:
        return len(self.rows) == len(set(self._wanted))

    def see(self, lengths: Lengths, first: int) -> None:
        """Look for the rows in a shard, whose first row is `first`."""
        sizes = self._measure(lengths)
        for length, before in self._seen.items():
            places = np.flatnonzero(sizes == length)
            self._seen[length] += len(places)
            for one in self._wanted:
                if one.length == length and before <= one.place < before + len(places):
                    self.rows[one] = first + int(places[one.place - before])
