"""How alike two texts are: twice the characters that they share in order, over all of theirs.

    similarity("chat", "cat") = 2 * 3 / 7

The shared ones are a longest common subsequence, found a whole row of the table at a time in the
bits of one number (H. Hyyrö, Bit-parallel LCS-length computation revisited, 2004).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CELLS = 25_000_000
"""Of the table of two texts: a quarter of a second. Longer ones are compared by words or lines."""


def similarity(one: str, other: str) -> float:
    """From 0, nothing in common, to 1, equal.

    Texts of more than 5,000 lines each are not compared, and have nothing in common.

    >>> round(similarity("chat", "cat"), 4)
    0.8571
    """
    if len(one) * len(other) <= MAX_CELLS:
        return _ratio(one, other)
    for split in (str.split, str.splitlines):
        first, second = split(one), split(other)
        if len(first) * len(second) <= MAX_CELLS:
            return _ratio(first, second)
    return 0.0


def _ratio(one: Sequence[str], other: Sequence[str]) -> float:
    total = len(one) + len(other)
    return 2 * num_common(one, other) / total if total else 1.0


def num_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Items of a longest common subsequence."""
    start, shortest = 0, min(len(one), len(other))
    while start < shortest and one[start] == other[start]:
        start += 1
    end = 0
    while end < shortest - start and one[-1 - end] == other[-1 - end]:
        end += 1
    return start + end + _bits(one[start : len(one) - end], other[start : len(other) - end])


def _bits(one: Sequence[str], other: Sequence[str]) -> int:
    places: dict[str, int] = {}
    for at, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << at
    full = (1 << len(one)) - 1
    row = full  # a zero bit for each item of `one` that ends a longer common subsequence
    for item in other:
        match = row & places.get(item, 0)
        row = ((row + match) | (row - match)) & full
    return len(one) - row.bit_count()


def may_be_near(one: str, other: str, least: float) -> bool:
    """Whether the similarity can reach `least`, by counts of characters alone.

    Each character that only one text has, counted with repetition, is not shared.
    """
    allowed = (1 - least) * (len(one) + len(other))
    if abs(len(one) - len(other)) > allowed:
        return False
    return int(np.abs(_counts(one) - _counts(other)).sum()) <= allowed


def _counts(text: str) -> NDArray[np.int64]:
    """(256,): code points by their last byte; folding can only hide a difference."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    return np.bincount(codes & 255, minlength=256)
