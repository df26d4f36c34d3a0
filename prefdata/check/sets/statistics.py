"""Shares and areas under curves, with their 95 % intervals."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = tuple[NDArray[Any], NDArray[Any]]
Z95 = 1.959963984540054  # of a standard normal, for 95 %


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def is_beyond(self, center: float, distance: float) -> bool:
        """Return True if the whole interval is farther than `distance` from the center."""
        return self.low > center + distance or self.high < center - distance


def share(successes: float, total: int) -> Estimate:
    """Return a share of trials with Wilson's score interval (E. B. Wilson, 1927); ties count half.

    >>> share(8, 10)
    Estimate(value=0.8, low=0.4901..., high=0.9433...)
    """
    assert total > 0, total
    mean, z2 = successes / total, Z95**2
    center = (mean + z2 / (2 * total)) / (1 + z2 / total)
    spread = Z95 * (mean * (1 - mean) / total + z2 / (4 * total**2)) ** 0.5 / (1 + z2 / total)
    return Estimate(mean, center - spread, center + spread)


def area_under_curve(positive: NDArray[np.generic], negative: NDArray[np.generic]) -> Estimate:
    """Return the chance that a value of `positive` is above one of `negative`; ties count half."""
    return area_of_counts(
        np.unique(positive, return_counts=True), np.unique(negative, return_counts=True)
    )


def area_of_counts(positive: Counts, negative: Counts) -> Estimate:
    """Return the area under the curve of values that are counted: sorted, and how many of each.

    The standard error is Hanley's and McNeil's (Radiology 143, 1982, eq. 1), which assumes that
    the samples are independent: for the sides of pairs that share their prompts it is too wide.
    """
    values, nums = negative
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(nums)])
    below = ends[np.searchsorted(values, positive[0], side="left")]
    up_to = ends[np.searchsorted(values, positive[0], side="right")]
    num_positive, num_negative = int(positive[1].sum()), int(nums.sum())
    total = sum(map(int.__mul__, (below + up_to).tolist(), positive[1].tolist()))
    area = total / num_positive / (2 * num_negative)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area)
        + (num_positive - 1) * (q1 - area**2)
        + (num_negative - 1) * (q2 - area**2)
    ) / (num_positive * num_negative)
    spread = Z95 * max(variance, 0.0) ** 0.5
    return Estimate(area, max(area - spread, 0.0), min(area + spread, 1.0))
