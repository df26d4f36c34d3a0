"""Difference of two texts, word by word, in bounded time and memory.

Words that both have in the same order are a longest common subsequence, which `rapidfuzz` finds.
Runs of a word or two that happen to be equal are noise between two different answers, and count as
different.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq

_UNIT = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_CELLS = 6_000_000  # product of two lengths; the middles of longer texts all differ
_LEAST_WORDS = 3  # of a run that counts as equal where different words stand on both its ends

Flags = NDArray[np.bool_]


class Span(NamedTuple):
    """A run of a text that is, or is not, in the other text too."""

    text: str
    differs: bool


class Difference(NamedTuple):
    """Two texts as spans; joined in order, the spans of a side give its whole text."""

    left: list[Span]
    right: list[Span]
    shared: float
    """Share of all words that both texts have in common."""


def compare(left: str, right: str) -> Difference:
    """What is in one text alone.

    >>> compare("It is a red house.", "It is a blue house.").right
    [Span(text='It is a ', differs=False), Span(text='blue', differs=True), \
Span(text=' house.', differs=False)]
    """
    units = _UNIT.findall(left), _UNIT.findall(right)
    same = _without_noise(units, _matches(*units))
    num_words = sum(_count_words(some) for some in units)
    num_same = sum(
        _count_words([unit for unit, is_same in zip(some, flags, strict=True) if is_same])
        for some, flags in zip(units, same, strict=True)
    )
    spans = [list(_spans(some, flags)) for some, flags in zip(units, same, strict=True)]
    return Difference(spans[0], spans[1], num_same / num_words if num_words else 1.0)


def _count_words(units: Sequence[str]) -> int:
    return sum(unit[0].isalnum() for unit in units)


def _spans(units: Sequence[str], same: Flags) -> Iterator[Span]:
    for is_same, group in groupby(zip(units, same, strict=True), key=lambda item: bool(item[1])):
        yield Span("".join(unit for unit, _ in group), differs=not is_same)


def _matches(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Places of equal units, increasing in both: the equal ends first, then between them."""
    most = min(len(left), len(right))
    start = next((n for n in range(most) if left[n] != right[n]), most)
    most -= start
    end = next((n for n in range(most) if left[-1 - n] != right[-1 - n]), most)
    middle = _common(left[start : len(left) - end], right[start : len(right) - end])
    return [
        *((n, n) for n in range(start)),
        *((start + i, start + j) for i, j in middle),
        *((len(left) - n, len(right) - n) for n in range(end, 0, -1)),
    ]


def _common(left: Sequence[str], right: Sequence[str]) -> list[tuple[int, int]]:
    """Places of a longest common subsequence of words, and of equal spaces between its words.

    None where the texts are too long for it.
    """
    own_at, other_at = (
        [n for n, unit in enumerate(units) if not unit.isspace()] for units in (left, right)
    )
    if len(own_at) * len(other_at) > _MOST_CELLS:
        return []
    blocks = LCSseq.opcodes([left[n] for n in own_at], [right[n] for n in other_at])
    found = [
        (own_at[block.src_start + n], other_at[block.dest_start + n])
        for block in blocks
        if block.tag == "equal"
        for n in range(block.src_end - block.src_start)
    ]
    spaces = [
        (i + 1, j + 1)
        for (i, j), after in pairwise(found)
        if after == (i + 2, j + 2) and left[i + 1] == right[j + 1]
    ]
    return sorted(found + spaces)


def _without_noise(
    units: tuple[Sequence[str], Sequence[str]], matches: Sequence[tuple[int, int]]
) -> tuple[Flags, Flags]:
    """Which units of each text are equal, without short runs between differences."""
    left, right = (np.zeros(len(some), np.bool_) for some in units)
    for run in _runs(matches):
        words = _count_words([units[0][i] for i, _ in run])
        (first_i, first_j), (last_i, last_j) = run[0], run[-1]
        begins = first_i == first_j == 0
        ends = (last_i, last_j) == (len(units[0]) - 1, len(units[1]) - 1)
        if begins or ends or words >= _LEAST_WORDS:
            for i, j in run:
                left[i] = right[j] = True
    return left, right


def _runs(matches: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Matches that follow one another without a gap in either text."""
    run: list[tuple[int, int]] = []
    for i, j in matches:
        if run and (i, j) != (run[-1][0] + 1, run[-1][1] + 1):
            yield run
            run = []
        run.append((i, j))
    if run:
        yield run
