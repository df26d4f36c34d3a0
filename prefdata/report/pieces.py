"""Token ids as pieces of text that a reader can look at."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from prefdata.tokens.tokenizer import TokenizerSpec

_MOST_IDS = 8  # of one piece: no character is cut into more
_CUT = "\ufffd"  # what a decoder writes for a part of a character

Decode = Callable[[tuple[int, ...]], str]


class Piece(NamedTuple):
    """A token, or the few that together are one character."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    """False where the loss leaves it out."""


def decoder_of(target: TokenizerSpec) -> Decode:
    """Ids to text; what was decoded once is remembered."""

    @lru_cache(maxsize=65_536)
    def decode(ids: tuple[int, ...]) -> str:
        return str(target.backend.decode(list(ids), skip_special_tokens=False))

    return decode


def pieces_of(ids: Sequence[int], mask: Sequence[bool] | None, decode: Decode) -> Iterator[Piece]:
    """The tokens of one part of a pair; those of one mask value never share a piece."""
    flags = mask if mask is not None else [True] * len(ids)
    for trained, group in groupby(zip(ids, flags, strict=True), key=lambda item: bool(item[1])):
        run = [token for token, _ in group]
        start = 0
        while start < len(run):
            size = _piece_size(run[start : start + _MOST_IDS], decode)
            piece = tuple(run[start : start + size])
            yield Piece(decode(piece), piece, trained)
            start += size


def _piece_size(run: Sequence[int], decode: Decode) -> int:
    """How many ids are whole characters: one, unless it ends inside of a character."""
    for size in range(1, len(run) + 1):
        if not decode(tuple(run[:size])).endswith(_CUT):
            return size
    return 1
