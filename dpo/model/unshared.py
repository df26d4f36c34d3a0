"""Parts of a pack: completions with their prompts as separate rows.

One part per completion is the pack unshared. If the longest text of a row decides the rotary
frequencies, texts of one class of lengths form a part.

    pack           P P P C C R R R R     classes of C and R: short, long
    part "short"   P P P C C
    part "long"    P P P R R R R
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpo.data.packing import Segment

Places = NDArray[np.int64]


class Part(NamedTuple):
    """Texts of a pack as one row of t tokens, n of them in completions."""

    places_t: Places
    """Index of each token in the pack's row."""
    is_new_t: NDArray[np.bool_]
    """False for the tokens of a prompt that an earlier part also runs."""
    segments: tuple[Segment, ...]
    predicts_n: Places
    """Index in this row of the hidden state that predicts each completion token."""
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
            places_t=np.concatenate(self.places),
            is_new_t=np.concatenate(self.is_new),
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
