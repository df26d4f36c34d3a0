"""Train and test, parted by prompt: neither a prompt nor a near-duplicate of it is in both."""

import numpy as np
from numpy.typing import NDArray

from prefdata.mix import Numbers, mix

_FEW_ROWS = 16  # a group of so few may be drawn, however small the set


def draw_test(groups: Numbers, *, test_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are in test, by the id of their group; 0 <= test_fraction <= 1.

    A group is a prompt, or prompts that are near-duplicates, under the smallest of their ids. Each
    is drawn by itself, so rows that come, go or move never change where another group lies; the
    share of groups in test is `test_fraction` on average. A group with more rows than the whole of
    test should have, such as prompts that share one long instruction, stays in train.
    """
    assert 0 <= test_fraction <= 1, test_fraction
    key = mix(np.array([seed], np.uint64))
    limit = round(test_fraction * 2**64)
    if limit == 2**64:
        return np.ones(len(groups), np.bool_)
    in_test: NDArray[np.bool_] = mix(groups ^ key) < np.uint64(limit)
    return in_test & ~too_large(groups, test_fraction=test_fraction)


def too_large(groups: Numbers, *, test_fraction: float) -> NDArray[np.bool_]:
    """Which rows are of a group that has more rows than the whole of test should have."""
    _, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = sizes[places] > max(_FEW_ROWS, test_fraction * len(groups))
    return found
