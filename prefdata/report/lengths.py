"""Length statistics of prompt, chosen and rejected: mean, quantiles, histograms, the longer side.

The edges of histograms are the same for all data.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prefdata.report.model import Histogram, Lengths

PARTS = ("prompt", "chosen", "rejected")

# Four bins per doubling, as far as integers allow: 0 1 2 3 4 5 6 7 8 10 11 13 16 19 23 …
EDGES: tuple[int, ...] = (0, *sorted({round(2 ** (k / 4)) for k in range(4 * 31 + 1)}))


class Measured(NamedTuple):
    """Length statistics of a report, in the unit of the given lengths."""

    lengths: dict[str, Lengths]
    histograms: dict[str, Histogram]
    chosen_longer: float
    """Share of the pairs whose chosen side is the longer one; equal ones count half."""


Counts = tuple[NDArray[np.integer], NDArray[np.int64]]
"""Lengths, sorted, and how many pairs have each."""


class LengthSums(NamedTuple):
    """Lengths of some pairs, counted; the sums of parts are those of the whole."""

    parts: Mapping[str, Counts]
    pairs: int
    more: int
    """Pairs whose chosen side is the longer one."""
    equal: int


def count_lengths(parts: Mapping[str, NDArray[np.integer]]) -> LengthSums:
    """Count lengths of prompt, chosen and rejected, (pairs,) each."""
    longer = parts["chosen"].astype(np.int64) - parts["rejected"].astype(np.int64)
    counts = {part: np.unique(values, return_counts=True) for part, values in parts.items()}
    return LengthSums(counts, len(longer), int((longer > 0).sum()), int((longer == 0).sum()))


def add_lengths(sums: Iterable[LengthSums]) -> LengthSums:
    """Return the sums over all parts."""
    empty = np.zeros(0, np.int64)
    total = LengthSums(dict.fromkeys(PARTS, (empty, empty)), 0, 0, 0)
    for one in sums:
        total = LengthSums(
            {part: _add_counts(total.parts[part], one.parts[part]) for part in PARTS},
            total.pairs + one.pairs,
            total.more + one.more,
            total.equal + one.equal,
        )
    return total


def _add_counts(one: Counts, other: Counts) -> Counts:
    values, places = np.unique(np.concatenate([one[0], other[0]]), return_inverse=True)
    nums = np.zeros(len(values), np.int64)
    np.add.at(nums, places, np.concatenate([one[1], other[1]]))
    return values, nums


def measure_parts(parts: Mapping[str, NDArray[np.integer]]) -> Measured | None:
    """Measure lengths of prompt, chosen and rejected, (pairs,) each; None without pairs."""
    return measure_sums(count_lengths(parts))


def measure_sums(sums: LengthSums) -> Measured | None:
    """Measure lengths that are counted; None without pairs."""
    if not sums.pairs:
        return None
    return Measured(
        {part: summarize(*counts) for part, counts in sums.parts.items()},
        {part: histogram(*counts) for part, counts in sums.parts.items()},
        round((sums.more + sums.equal / 2) / sums.pairs, 6),
    )


def summarize(values: NDArray[np.integer], nums: NDArray[np.int64]) -> Lengths:
    """Return mean and quantiles of at least one length; each is there `nums` times."""
    ends, total = np.cumsum(nums), int(nums.sum())

    def at(place: int) -> int:
        return int(values[np.searchsorted(ends, min(place, total - 1), side="right")])

    # As numpy's percentile: between the values at both sides of 0.95 · (n - 1).
    below = int(0.95 * (total - 1))
    share, low, high = 0.95 * (total - 1) - below, at(below), at(below + 1)
    p95 = low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    weighted = sum(int(value) * int(num) for value, num in zip(values, nums, strict=True))
    return Lengths(
        mean=round(weighted / total, 3),
        median=(at((total - 1) // 2) + at(total // 2)) / 2,
        p95=round(p95, 3),
        max=int(values[-1]),
    )


def histogram(values: NDArray[np.integer], nums: NDArray[np.int64] | None = None) -> Histogram:
    """Return the counts of lengths in the bins of EDGES, without empty bins at either end.

    Each length is there `nums` times, or once.

    >>> histogram(np.array([4, 4, 6]))
    Histogram(edges=[4, 5, 6, 7], counts=[2, 0, 1])
    """
    places = np.searchsorted(np.asarray(EDGES), values, side="right") - 1
    counts = np.bincount(np.minimum(places, len(EDGES) - 2), nums).astype(np.int64)
    used = np.flatnonzero(counts)
    if not len(used):
        return Histogram(edges=[0, 1], counts=[0])
    first, last = int(used[0]), int(used[-1])
    return Histogram(
        edges=list(EDGES[first : last + 2]), counts=[int(n) for n in counts[first : last + 1]]
    )


def by_doubling(shape: Histogram) -> list[tuple[str, int]]:
    """Return the histogram in few wide bins, as (label, pairs): 0, 1, 2–3, 4–7, 8–15, …

    >>> by_doubling(Histogram(edges=[4, 5, 6, 7, 8, 10], counts=[2, 0, 1, 0, 5]))
    [('4–7', 3), ('8–15', 5)]
    """
    totals: dict[int, int] = {}
    for (low, _), count in zip(pairwise(shape.edges), shape.counts, strict=True):
        totals[low.bit_length()] = totals.get(low.bit_length(), 0) + count
    return [(_doubling(bits), totals.get(bits, 0)) for bits in range(min(totals), max(totals) + 1)]


def _doubling(bits: int) -> str:
    low, high = (1 << bits) >> 1, (1 << bits) - 1
    return f"{low:,}" if low >= high else f"{low:,}–{high:,}"
