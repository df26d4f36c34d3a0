"""Pairs of a build by row, text and tokens together, without loading a whole split.

Rows count over all splits, in the manifest's order, from 0. Tokens are shown as readable pieces.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from pyarrow import parquet

from prefdata.errors import UsageError
from prefdata.records.text import ELEMENT_LINE
from prefdata.report.figures import count
from prefdata.report.model import Example
from prefdata.store.reader import Build, Shard
from prefdata.tokens.tokenizer import TokenizerSpec


class Turn(NamedTuple):
    """Message to be shown; the role of verbatim text is empty."""

    role: str
    content: str


class ShownPair(NamedTuple):
    """Pair of a build, with its tokens and text."""

    row: int
    split: str
    at: int
    """Row in the split."""
    tokens: dict[str, Any]
    """Columns of its token shard."""
    text: dict[str, Any]
    """Columns of its text shard."""

    def turns(self, part: str) -> list[Turn]:
        """Return prompt, chosen or rejected as messages."""
        value = self.text[part]
        if isinstance(value, str):
            return [Turn("", value)]
        return [Turn(message["role"], _content(message)) for message in value]

    def words(self, part: str) -> str:
        """Return the contents of a field as one text; several turns are named by role."""
        turns = self.turns(part)
        named = len(turns) > 1
        return "\n\n".join(f"{t.role}: {t.content}" if named else t.content for t in turns)


def place_of(row: Mapping[str, Any], kind: str = "") -> str:
    """Return a row's place as messages have it; `kind` is `kept_` for the pair kept instead.

    >>> place_of({"source": "rows.json", "line": 3, "element_line": 17})
    'rows.json:17 (element 3)'
    """
    source, number = row[f"{kind}source"], row[f"{kind}line"]
    begins = row.get(f"{kind}{ELEMENT_LINE}")
    if begins is None:
        return f"{source}:{number}"
    return Example(source=source, line=begins, element=number, message="").place


def _content(message: dict[str, Any]) -> str:
    """Return a turn's content, with its reasoning and tool calls, if any."""
    others = [message.get(name) for name in ("reasoning", "tool_calls")]
    return "\n".join(text for text in (others[0], message["content"], others[1]) if text)


def num_rows(build: Build) -> int:
    return sum(split.rows for split in build.splits.values())


def spread_rows(total: int, most: int) -> list[int]:
    """Return at most `most` rows, at equal distances.

    >>> spread_rows(10, 4), spread_rows(3, 4)
    ([0, 2, 5, 7], [0, 1, 2])
    """
    return [n * total // most for n in range(most)] if most < total else list(range(total))


def read_pair(build: Build, row: int) -> ShownPair:
    """Return one pair. Raises E144 if the row does not exist."""
    total = num_rows(build)
    if not 0 <= row < total:
        raise UsageError("E144", str(build.path), f"has no row {row}", f"rows are 0 to {total - 1}")
    return next(read_pairs(build, [row]))


def find_id(build: Build, prefix: str) -> int:
    """Return the row of the pair whose id begins so. Raises E144 if none does, or several do."""
    found, start = list[int](), 0
    for split in build.splits:
        for shard in build.shards(split):
            ids = shard.read()["pair_id"].to_pylist()
            found += [start + at for at, one in enumerate(ids) if one.hex().startswith(prefix)]
            start += shard.rows
    if len(found) != 1:
        problem = f"has {count(len(found), 'pair')} whose id begins with {prefix!r}"
        remedy = "give more digits" if found else "ids are in the column pair_id of its text shards"
        raise UsageError("E144", str(build.path), problem, remedy)
    return found[0]


def read_pairs(build: Build, rows: Sequence[int]) -> Iterator[ShownPair]:
    """Yield the pairs of the given rows, which are in increasing order."""
    start = 0
    for split in build.splits:
        first = start
        for shard in build.shards(split):
            asked = [row - start for row in rows if start <= row < start + shard.rows]
            for at, tokens, text in _read_shard(build, shard, asked):
                yield ShownPair(start + at, split, start + at - first, tokens, text)
            start += shard.rows


def _read_shard(
    build: Build, shard: Shard, asked: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield row in the shard, tokens and text of the requested rows, one row group at a time."""
    if not asked:
        return
    tokens, path = shard.read(), build.file(text_path(shard.name))
    with parquet.ParquetFile(path.absolute()) as file:
        start = 0
        for number in range(file.num_row_groups):
            end = start + file.metadata.row_group(number).num_rows
            places = [at for at in asked if start <= at < end]
            if places:
                group = file.read_row_group(number).take(np.array(places) - start)
                token_rows = tokens.take(np.array(places)).to_pylist()
                yield from zip(places, token_rows, group.to_pylist(), strict=True)
            start = end


def text_path(tokens_path: str) -> str:
    """Return the path of the text shard that belongs to a token shard.

    >>> text_path("tokens/train-00000-of-00001.arrow")
    'text/train-00000-of-00001.parquet'
    """
    name = tokens_path.removeprefix("tokens/").removesuffix(".arrow")
    return f"text/{name}.parquet"


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
