"""Similarity of two texts: twice the characters that they share in order, over all of theirs.

    similarity("chat", "cat") = 2 * 3 / 7

This is the normalized Indel similarity of `rapidfuzz`.
"""

from collections.abc import Sequence

from rapidfuzz.distance import Indel

MAX_CELLS = 25_000_000
"""Longest texts to compare by characters, as the product of their lengths; longer ones are compared
by words, or by lines."""


def similarity(one: str, other: str, *, least: float = 0.0) -> float:
    """Return the similarity, from 0, nothing in common, to 1, equal; 0 if it is below `least`.

    Texts of more than 5,000 lines each are not compared, and have nothing in common.

    >>> round(similarity("chat", "cat"), 4)
    0.8571
    """
    if len(one) * len(other) <= MAX_CELLS:
        return _ratio(one, other, least)
    for split in (str.split, str.splitlines):
        first, second = split(one), split(other)
        if len(first) * len(second) <= MAX_CELLS:
            return _ratio(first, second, least)
    return 0.0


def _ratio(one: Sequence[str], other: Sequence[str], least: float) -> float:
    total = len(one) + len(other)
    if not total:
        return 1.0
    most = int((1 - least) * total) + 1  # one more than needed, as the product is rounded
    found = (total - Indel.distance(one, other, score_cutoff=most)) / total
    return found if found >= least else 0.0
