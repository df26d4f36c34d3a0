"""Exact test of pairs: Jaccard similarity of two sets of shingles, in blocks of pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefdata.arrow import Ragged, from_lengths, take
from prefdata.dedup.near.shingles import blocks_of, overlap
from prefdata.dedup.near.sketch import LANES, Sketch

Rows = NDArray[np.int64]
_BLOCK_SHINGLES = 1 << 18  # about what a core's cache holds


class Pairs(NamedTuple):
    """Pairs of rows and their Jaccard similarity."""

    a: Rows
    b: Rows
    similarity: NDArray[np.float64]


class SetStore:
    """Sets of several sketches, with rows numbered across them."""

    def __init__(self, sketches: Sequence[Sketch]) -> None:
        self._sets = [sketch.sets for sketch in sketches]
        self._ends = np.cumsum([len(sets.offsets) - 1 for sets in self._sets])
        self.sizes = np.concatenate([np.zeros(0, np.int64), *(sets.lengths for sets in self._sets)])
        self._parity = [
            np.concatenate([s.parity[lane] for s in sketches])
            for lane in range(LANES * bool(sketches))
        ]

    def similarity(self, a: Rows, b: Rows) -> NDArray[np.float64]:
        """Return the Jaccard similarity of each pair of rows; 0 if either set is empty."""
        found = np.zeros(len(a))
        sizes = self.sizes[a] + self.sizes[b]
        for block in blocks_of(sizes, _BLOCK_SHINGLES):
            common = overlap(self._take(a[block]), self._take(b[block]))
            found[block] = common / np.maximum(sizes[block] - common, 1)
        return found

    def at_least(self, a: Rows, b: Rows, threshold: float) -> Pairs:
        """Return the pairs with at least the similarity `threshold`."""
        may_match = self._may_be(a, b, threshold)
        a, b = a[may_match], b[may_match]
        similarity = self.similarity(a, b)
        found = similarity >= threshold
        return Pairs(a[found], b[found], similarity[found])

    def _may_be(self, a: Rows, b: Rows, threshold: float) -> NDArray[np.bool_]:
        """Return False for pairs that cannot reach the threshold: a cheap bound.

        It rules out most non-matches. With s = |A| + |B| and d shingles in only one of the sets,
        J = (s - d) / (s + d). Each bit in which the parities differ is at least one shingle of d.
        """
        sizes = self.sizes[a] + self.sizes[b]
        alone = np.abs(self.sizes[a] - self.sizes[b])
        differing = np.zeros(len(a), np.int64)
        for lane in self._parity:
            differing += np.bitwise_count(lane[a] ^ lane[b])
        most = sizes * (1 - threshold) / (1 + threshold)
        may_match: NDArray[np.bool_] = np.maximum(alone, differing) <= most + 1e-6
        return may_match

    def _take(self, rows: Rows) -> Ragged:
        if len(self._sets) == 1:
            return take(self._sets[0], rows)
        part = np.searchsorted(self._ends, rows, side="right")
        sizes = self.sizes[rows]
        taken = np.empty(sizes.sum(), np.uint64)
        for number in np.unique(part).tolist():
            mine = part == number
            first = self._ends[number] - len(self._sets[number].offsets) + 1
            taken[np.repeat(mine, sizes)] = take(self._sets[number], rows[mine] - first).values
        return from_lengths(taken, sizes)
