"""Near-duplicates among all texts: keys propose pairs, exact similarity decides.

Guarantee: two rows are in one cluster if and only if a chain of pairs leads from one to the other,
each with an equal key and a similarity at or above the threshold. A pair is skipped only in a
bucket of more than MAX_NEIGHBORS + 1 different sets, if MAX_NEIGHBORS or more of them are between
its two in the order of their whole keys. So clusters do not depend on the order of the rows, on
the parts that were sketched, or on the worker that did it.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from prefdata.dedup.near.overlap import Pairs, Rows, SetStore
from prefdata.dedup.near.sketch import Sketch
from prefdata.hashing import Numbers

PAIRS = {"a": pl.UInt32, "b": pl.UInt32, "similarity": pl.Float64}
_NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
MAX_NEIGHBORS = 256
"""Maximum number of neighbors in a bucket with which each of its sets is compared."""


class Forest:
    """Union-find over arrays: trees of connected rows, each with its smallest row as its root."""

    def __init__(self, num_rows: int) -> None:
        self._parents: Rows = np.arange(num_rows)

    @staticmethod
    def of_labels(labels: Rows) -> "Forest":
        """Return the forest of rows of which those with equal labels are connected."""
        _, first, tree = np.unique(labels, return_index=True, return_inverse=True)
        forest = Forest(0)
        forest._parents = first[tree]
        return forest

    def roots(self, rows: Rows) -> Rows:
        """Return the root of each row's tree: the smallest row connected to it."""
        roots = self._parents[rows]
        while True:
            above = self._parents[roots]
            if (above == roots).all():
                break
            roots = above
        self._parents[rows] = roots
        return roots

    def join(self, a: Rows, b: Rows) -> None:
        """Union the two rows of each pair; the result does not depend on their order."""
        while len(a):
            roots_a, roots_b = self.roots(a), self.roots(b)
            apart = roots_a != roots_b
            a, b = roots_a[apart], roots_b[apart]
            np.minimum.at(self._parents, np.maximum(a, b), np.minimum(a, b))

    def labels(self) -> Rows:
        return self.roots(np.arange(len(self._parents)))


def find_pairs(sketches: Sequence[Sketch], *, threshold: float) -> pl.DataFrame:
    """Return pairs of near-duplicates that connect every cluster: a < b, and their similarity.

    Rows are numbered across all sketches. Pairs whose rows are already joined are skipped, so
    these are not all pairs of a cluster, but `cluster` gives the same result.
    """
    shelf = SetStore(sketches)
    forest = Forest(len(shelf.sizes))
    whole = shelf.keys(0)
    filled = np.flatnonzero(shelf.sizes)
    filled = filled[np.lexsort((filled, whole[filled]))]
    copies = join_copies(shelf, forest, filled, whole[filled])
    rows = filled[forest.roots(filled) == filled]
    found = [_NO_PAIRS, copies]
    for number in range(1, len(sketches[0].keys) if sketches else 0):
        keys = shelf.keys(number)[rows]
        order = np.argsort(keys, kind="stable")
        found += join_buckets(shelf, forest, rows[order], keys[order], threshold)
    columns = zip(Pairs._fields, map(np.concatenate, zip(*found, strict=True)), strict=True)
    return pl.DataFrame(dict(columns), PAIRS).sort("a", "b")


def join_copies(shelf: SetStore, forest: Forest, rows: Rows, whole: Numbers) -> Pairs:
    """Join equal sets, so that one of them represents all; rows are sorted by their whole keys."""
    first = np.flatnonzero(np.diff(whole, prepend=~whole[:1]) != 0)
    leaders = np.repeat(rows[first], np.diff(first, append=len(rows)))
    other = leaders != rows
    pairs = shelf.at_least(leaders[other], rows[other], 1.0)
    forest.join(pairs.a, pairs.b)
    return pairs


def join_buckets(
    shelf: SetStore, forest: Forest, rows: Rows, keys: Numbers, threshold: float
) -> list[Pairs]:
    """Test the pairs of each bucket, neighbors first, until its rows are all joined.

    Rows of one bucket, which have equal keys, are adjacent.
    """
    first = np.flatnonzero(np.diff(keys, prepend=~keys[:1]) != 0)
    sizes = np.diff(first, append=len(rows))
    bucket = np.repeat(np.arange(len(first)), sizes)
    found = []
    for distance in range(1, MAX_NEIGHBORS + 1):
        rows, bucket = _still_open(forest, rows, bucket, distance)
        if not len(rows):
            break
        pair = np.flatnonzero(bucket[distance:] == bucket[:-distance])
        a, b = rows[pair], rows[pair + distance]
        apart = forest.roots(a) != forest.roots(b)
        a, b = a[apart], b[apart]
        pairs = shelf.at_least(np.minimum(a, b), np.maximum(a, b), threshold)
        forest.join(pairs.a, pairs.b)
        found.append(pairs)
    return found


def _still_open(forest: Forest, rows: Rows, bucket: Rows, distance: int) -> tuple[Rows, Rows]:
    """Return the rows of the buckets in which a pair at this distance may still join two trees."""
    if not len(rows):
        return rows, bucket
    first = np.flatnonzero(np.diff(bucket, prepend=-1))
    sizes = np.diff(first, append=len(rows))
    roots = forest.roots(rows)
    is_joined = np.minimum.reduceat(roots, first) == np.maximum.reduceat(roots, first)
    kept_mask = np.repeat(~is_joined & (sizes > distance), sizes)
    return rows[kept_mask], bucket[kept_mask]
