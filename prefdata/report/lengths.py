"""Length statistics of prompt, chosen and rejected: mean, quantiles, histograms, the longer side.

The edges of histograms are the same for all data.
"""

from collections.abc import Mapping
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


def measure_parts(parts: Mapping[str, NDArray[np.integer]]) -> Measured | None:
    """Measure lengths of prompt, chosen and rejected, (pairs,) each; None without pairs."""
    if not len(parts["prompt"]):
        return None
    longer = np.sign(parts["chosen"].astype(np.int64) - parts["rejected"].astype(np.int64))
    return Measured(
        {part: summarize(values) for part, values in parts.items()},
        {part: histogram(values) for part, values in parts.items()},
        round(float(np.mean((longer + 1) / 2)), 6),
    )


def summarize(values: NDArray[np.integer]) -> Lengths:
    """Return mean and quantiles of at least one length."""
    return Lengths(
        mean=round(float(values.mean()), 3),
        median=float(np.median(values)),
        p95=round(float(np.percentile(values, 95)), 3),
        max=int(values.max()),
    )


def histogram(values: NDArray[np.integer]) -> Histogram:
    """Return the counts of lengths in the bins of EDGES, without empty bins at either end.

    >>> histogram(np.array([4, 4, 6]))
    Histogram(edges=[4, 5, 6, 7], counts=[2, 0, 1])
    """
    places = np.searchsorted(np.asarray(EDGES), values, side="right") - 1
    counts = np.bincount(np.minimum(places, len(EDGES) - 2))
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
