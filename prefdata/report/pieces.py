"""Token ids as readable pieces of text."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from prefdata.tokens.tokenizer import TokenizerSpec

_MOST_IDS = 8  # per piece: no character is cut into more
_CUT = "\ufffd"  # output of a decoder for an incomplete character

Decode = Callable[[tuple[int, ...]], str]


class Piece(NamedTuple):
    """Token, or the few tokens that together are one character."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    """False if the loss excludes it."""


def decoder_of(target: TokenizerSpec) -> Decode:
    """Return a cached function from ids to text."""

    @lru_cache(maxsize=65_536)
    def decode(ids: tuple[int, ...]) -> str:
        return str(target.backend.decode(list(ids), skip_special_tokens=False))

    return decode


def pieces_of(ids: Sequence[int], mask: Sequence[bool] | None, decode: Decode) -> Iterator[Piece]:
    """Yield the pieces of one field of a pair; tokens of different mask values share no piece."""
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
    """Return the number of ids in the first piece: one, unless it ends inside a character."""
    for size in range(1, len(run) + 1):
        if not decode(tuple(run[:size])).endswith(_CUT):
            return size
    return 1
