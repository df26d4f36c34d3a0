"""Exact test of pairs: Jaccard similarity of two sets of shingles, in blocks of pairs."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefdata.arrow import Ragged, stack, take
from prefdata.dedup.near.shingles import blocks_of, overlap
from prefdata.dedup.near.sketch import LANES, Sketch
from prefdata.hashing import Numbers

Rows = NDArray[np.int64]
_BLOCK_SHINGLES = 1 << 18  # about what a core's cache holds


class Pairs(NamedTuple):
    """Pairs of rows and their Jaccard similarity."""

    a: Rows
    b: Rows
    similarity: NDArray[np.float64]


class SetStore:
    """Sets of several sketches: all of them, numbered across the sketches, or some rows."""

    def __init__(self, sketches: Sequence[Sketch], places: tuple[Rows, Rows] | None = None) -> None:
        """Take the rows at `places`, an index in `sketches` and a row there each; None: all."""
        self._sketches = sketches
        self._part, self._place = _all_places(sketches) if places is None else places
        self.sizes = np.empty(len(self._part), np.int64)
        self._whole = np.empty(len(self._part), np.uint64)
        for number, run in _runs(self._part):
            sketch, rows = sketches[number], self._place[run]
            self.sizes[run] = sketch.sets.offsets[rows + 1] - sketch.sets.offsets[rows]
            self._whole[run] = sketch.keys[0][rows]

    def keys(self, number: int) -> Numbers:
        """Return one of the keys of each row; the first is that of the whole set."""
        if number == 0:
            return self._whole
        found = np.empty(len(self._part), np.uint64)
        for part, run in _runs(self._part):
            found[run] = self._sketches[part].keys[number][self._place[run]]
        return found

    @cached_property
    def _parity(self) -> Numbers:
        """Return the parity of all rows, (LANES, rows), loaded once a pair is tested."""
        found = np.empty((LANES, len(self._part)), np.uint64)
        for number, run in _runs(self._part):
            rows = self._place[run]
            found[:, run] = [lane[rows] for lane in self._sketches[number].parity]
        return found

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
        part, place = self._part[rows], self._place[rows]
        runs = list(_runs(part))
        sets = [take(self._sketches[number].sets, place[run]) for number, run in runs]
        order = np.concatenate([np.zeros(0, np.int64), *(run for _, run in runs)])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return take(stack(sets, np.uint64), back)


def _all_places(sketches: Sequence[Sketch]) -> tuple[Rows, Rows]:
    sizes = [len(sketch.sets.offsets) - 1 for sketch in sketches]
    places = [np.arange(size) for size in sizes]
    empty = np.zeros(0, np.int64)
    return np.repeat(np.arange(len(sizes)), sizes), np.concatenate([empty, *places])


def _runs(part: Rows) -> Iterator[tuple[int, Rows]]:
    """Yield each part that occurs, with the indices at which it does."""
    order = np.argsort(part, kind="stable")
    ends = np.flatnonzero(np.diff(part[order])) + 1
    for run in np.split(order, ends) if len(order) else ():
        yield int(part[run[0]]), run
