"""Parts of a pack: completions with their prompts in passes of their own.

If the longest text of a row decides the rotary frequencies, texts of one class of lengths form a
part. Unshared, each completion is a row with a copy of its prompt, and rows of similar length form
a part, padded on the right.

    pack           P P P C C R R R R     classes of C and R: short, long
    part "short"   P P P C C
    part "long"    P P P R R R R
    unshared       P P P C C · ·
                   P P P R R R R
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpo.data.packing import Segment

Places = NDArray[np.int64]


PASSES = 4
"""Maximum parts of the unshared texts of one class."""


class Part(NamedTuple):
    """Texts of a pack as R rows of T tokens, n of them in completions."""

    places_RT: Places
    """Index of each token in the pack's row; −1 is padding."""
    is_new_RT: NDArray[np.bool_]
    """False for padding, and for the tokens of a prompt that an earlier row also runs."""
    segments: tuple[Segment, ...]
    predicts_n: Places
    """Index in the flattened rows of the hidden state that predicts each completion token."""
    tokens_n: Places
    """Index of each of them among the completion tokens of the pack."""


class _Growing:
    """Part under construction."""

    def __init__(self) -> None:
        self.places: list[Places] = []
        self.is_new: list[NDArray[np.bool_]] = []
        self.segments: list[tuple[int, list[int]]] = []
        self.predicts: list[Places] = []
        self.tokens: list[Places] = []
        self.length = self.end_of_prompt = 0
        self.segment = -1

    def add_prompt(self, number: int, places: Places, *, is_new: bool) -> None:
        self.segment = number
        self.segments.append((len(places), []))
        self._add(places, is_new=is_new)
        self.end_of_prompt = self.length

    def add_completion(self, places: Places, tokens: Places) -> None:
        predicts = np.arange(self.length - 1, self.length + len(places) - 1)
        predicts[:1] = self.end_of_prompt - 1
        self.predicts.append(predicts)
        self.tokens.append(tokens)
        self.segments[-1][1].append(len(places))
        self._add(places, is_new=True)

    def _add(self, places: Places, *, is_new: bool) -> None:
        self.places.append(places)
        self.is_new.append(np.full(len(places), is_new))
        self.length += len(places)

    def part(self) -> Part:
        return Part(
            places_RT=np.concatenate(self.places)[None],
            is_new_RT=np.concatenate(self.is_new)[None],
            segments=tuple(Segment(prompt, tuple(lengths)) for prompt, lengths in self.segments),
            predicts_n=np.concatenate(self.predicts),
            tokens_n=np.concatenate(self.tokens),
        )


def split_pack(segments: Sequence[Segment], classes: Sequence[Hashable]) -> list[Part]:
    """Return one part per distinct class of the pack's completions, in order of appearance."""
    growing: dict[Hashable, _Growing] = {}
    start = token = completion = 0
    for number, segment in enumerate(segments):
        prompt = np.arange(start, start + segment.prompt)
        start += segment.prompt
        is_new = True
        for length in segment.completions:
            part = growing.setdefault(classes[completion], _Growing())
            if part.segment != number:
                part.add_prompt(number, prompt, is_new=is_new)
                is_new = False
            part.add_completion(np.arange(start, start + length), np.arange(token, token + length))
            start, token, completion = start + length, token + length, completion + 1
    return [part.part() for part in growing.values()]


def split_texts(
    segments: Sequence[Segment], classes: Sequence[Hashable], *, passes: int = PASSES
) -> list[Part]:
    """Return the completions of a pack as rows of their own, at most `passes` parts per class."""
    rows = split_pack(segments, range(len(classes)))
    members: dict[Hashable, list[Part]] = {}
    for row, name in zip(rows, classes, strict=True):
        members.setdefault(name, []).append(row)
    return [
        pad([some[place] for place in batch])
        for some in members.values()
        for batch in batches([row.places_RT.shape[1] for row in some], most=max(1, passes))
    ]


def pad(rows: Sequence[Part]) -> Part:
    """Return parts of one row as one part, padded on the right."""
    length = max(row.places_RT.shape[1] for row in rows)
    widths = [((0, 0), (0, length - row.places_RT.shape[1])) for row in rows]
    both = list(zip(rows, widths, strict=True))
    return Part(
        places_RT=np.concatenate(
            [np.pad(row.places_RT, width, constant_values=-1) for row, width in both]
        ),
        is_new_RT=np.concatenate([np.pad(row.is_new_RT, width) for row, width in both]),
        segments=tuple(segment for row in rows for segment in row.segments),
        predicts_n=np.concatenate([n * length + row.predicts_n for n, row in enumerate(rows)]),
        tokens_n=np.concatenate([row.tokens_n for row in rows]),
    )


def batches(lengths: Sequence[int], *, most: int = PASSES) -> list[list[int]]:
    """Return the texts of each batch, by their places: at most `most`, with the least padding.

    >>> batches([9, 2, 3, 8, 2], most=2)
    [[1, 4, 2], [3, 0]]
    """
    order = np.argsort(lengths, kind="stable")
    sizes, ends = np.unique(np.asarray(lengths)[order], return_counts=True)
    ends = np.cumsum(ends)
    cuts = _cheapest_cuts(sizes, ends, most)
    return [part.tolist() for part in np.split(order, ends[cuts])]


def _cheapest_cuts(sizes: NDArray[np.int64], ends: NDArray[np.int64], most: int) -> list[int]:
    """Return the last distinct length of each batch but the last, by its index.

    A batch costs its texts times their longest length. `best[k]` is the least cost of the texts
    up to each length in k + 1 batches; a batch begins after the texts of an earlier length.
    """
    count = len(sizes)
    before = np.concatenate(([0], ends[:-1]))
    cost_FL = np.where(
        np.arange(count)[:, None] <= np.arange(count), sizes * (ends - before[:, None]), np.inf
    )  # of a batch from the first to the last length
    best, first = cost_FL[0], []
    for _ in range(min(most, count) - 1):
        total_FL = np.concatenate(([0.0], best[:-1]))[:, None] + cost_FL
        first.append(total_FL.argmin(0))
        best = total_FL.min(0)
    cuts, last = [], count - 1
    for firsts in reversed(first):
        start = int(firsts[last])
        if start == 0:
            break
        cuts.append(start - 1)
        last = start - 1
    return cuts[::-1]
