"""Rows of a built split for training: views of mapped shards, which are opened when needed."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpo.data.groups import Ids, find_group, group_starts, run_starts
from dpo.data.lengths import Finder, LengthCounts, Lengths, Measure, Wanted, of_pair
from dpo.data.packing import PromptWithCompletions
from dpo.data.shards import Column, Shards, Source, one_chunk

PARTS = ("prompt_ids", "chosen_ids", "rejected_ids")
MASKS = ("chosen_mask", "rejected_mask")


class _Lists:
    """List column of one shard: row i is `values[offsets[i]:offsets[i + 1]]`."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._array = one_chunk(column)
        rows, buffers = len(self._array), self._array.buffers()
        start = 4 * self._array.offset
        self.offsets = (
            np.frombuffer(buffers[1], np.int32, rows + 1, start) if rows else np.zeros(1, np.int32)
        )

    @cached_property
    def values(self) -> NDArray[np.int32]:
        return self._array.values.to_numpy()  # type: ignore[no-any-return]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the length of each row. Raises ValueError for offsets that cannot be right."""
        lengths = np.diff(self.offsets)
        if self.offsets[0] < 0 or (lengths < 0).any() or self.offsets[-1] > len(self._array.values):
            raise ValueError("offsets are not those of lists")
        return lengths.astype(np.int64)

    def row(self, place: int) -> NDArray[np.int32]:
        return self.values[self.offsets[place] : self.offsets[place + 1]]


class TokenShard:
    """Columns of one token shard, all of them views of its file."""

    def __init__(self, table: pa.Table, first: int) -> None:
        self.first = first
        """Index of its first row in the split."""
        self._table = table
        self.parts = [_Lists(table[name]) for name in PARTS]
        self._masks = [None if table[name].null_count == len(table) else one_chunk(table[name])
                       for name in MASKS]  # fmt: skip

    def row(self, place: int) -> PromptWithCompletions:
        """Return prompt, chosen and rejected of a row, with its masks."""
        prompt, chosen, rejected = (part.row(place) for part in self.parts)
        masks = tuple(_mask(column, place) for column in self._masks)
        return PromptWithCompletions(prompt, (chosen, rejected), masks)

    @property
    def lengths(self) -> Lengths:
        return np.stack([part.lengths for part in self.parts]).T  # each column contiguous

    def size(self, place: int) -> int:
        """Return the tokens of a row: prompt once, chosen and rejected."""
        return int(sum(part.offsets[place + 1] - part.offsets[place] for part in self.parts))

    def lengths_at(self, places: NDArray[np.int64]) -> Lengths:
        """Return tokens of prompt, chosen and rejected of some rows."""
        sizes = [part.offsets[places + 1] - part.offsets[places] for part in self.parts]
        return np.stack(sizes, 1).astype(np.int64)

    @cached_property
    def group_ids(self) -> Ids:
        return _ids(self._table["group_id"])

    @cached_property
    def pair_ids(self) -> Ids:
        return _ids(self._table["pair_id"])

    @property
    def largest_id(self) -> int:
        """Return the largest token id; -1 if there is none."""
        return max((int(part.values.max()) for part in self.parts if len(part.values)), default=-1)

    def numbers(self, name: str, places: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return a column of numbers, of some rows or all; NaN where it is null."""
        column = self._table[name]
        if column.null_count == len(column):
            values = np.broadcast_to(np.float32(np.nan), len(column))
        else:
            values = one_chunk(column).to_numpy(zero_copy_only=False)
            values = values.astype(np.float32, copy=False)
        return values if places is None else values[places]

    def groups_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return first row and number of rows of the group of some rows, (places, 2)."""
        found = [find_group(self, place) for place in places.tolist()]
        return np.array([(self.first + one.start, len(one)) for one in found], np.int64)


class Deduplicated(NamedTuple):
    """Pairs as the model runs them: each prompt once, and each distinct completion of it."""

    prompts: list[PromptWithCompletions]
    sides: NDArray[np.int64]
    """Indices of each pair's chosen and rejected among all completions, (rows, 2)."""


class Pairs:
    """Rows of one split, by index.

    Columns are indexed by rows: `pairs.lengths[rows]`. Only what `rows` need is opened.
    """

    def __init__(self, shards: Sequence[Source]) -> None:
        self.shards = Shards(shards, TokenShard)
        floats, ints = np.zeros(0, np.float32), np.zeros(0, np.int64)
        self.weights = Column(self.shards, lambda s, at: s.numbers("weight", at), empty=floats)
        self.margins = Column(self.shards, lambda s, at: s.numbers("margin", at), empty=floats)
        self.lengths = Column(self.shards, TokenShard.lengths_at, empty=np.zeros((0, 3), np.int64))
        """Tokens of prompt, chosen and rejected of each row, (rows, 3)."""
        self.sizes = Column(self.shards, lambda s, at: of_pair(s.lengths_at(at)), empty=ints)
        """Tokens of each row: prompt once, chosen and rejected, (rows,)."""
        self.groups = Column(self.shards, lambda s, at: s.groups_at(at)[:, 0], empty=ints)
        """Number of each row's group, (rows,): its first row. A group has the pairs of a prompt; in
        a mixture, where a pair has several rows, each copy of the pairs is a group of its own."""
        self.shares = Column(self.shards, lambda s, at: 1 / s.groups_at(at)[:, 1], empty=floats)
        """Share of each row in its group, (rows,)."""

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: int) -> PromptWithCompletions:
        """Return prompt, chosen and rejected of a row, with its masks."""
        shard, place = self.shards.locate(row)
        return shard.row(place)

    @cached_property
    def counts(self) -> LengthCounts:
        """Return the numbers of rows by length: one pass over all shards."""
        total = LengthCounts.of(np.zeros((0, 3), np.int64))
        for counts in self.shards.scan(lambda shard: LengthCounts.of(shard.lengths)):
            total = total.plus(counts)
        return total

    @property
    def largest_size(self) -> int:
        """Return the tokens of the longest pair, its prompt once."""
        return len(self.counts.pairs) - 1

    def find(self, measure: Measure, wanted: Sequence[Wanted]) -> list[int]:
        """Return rows by their length, by a pass over the shards until all are found."""
        finder = Finder(measure, wanted)
        for shard in self.shards.scan(lambda shard: (shard.lengths, shard.first)):
            if finder.is_done:
                break
            finder.see(*shard)
        return [finder.rows[one] for one in wanted]

    def longest_groups(self, most: int) -> list[range]:
        """Return the groups with the most tokens if they shared nothing, the longest first."""
        found: list[tuple[int, int, int]] = []  # tokens, negative; first row; rows

        for groups in self.shards.scan(_group_sizes):
            order = np.argsort(-groups[:, 0], kind="stable")[:most]
            found += [(-size, start, rows) for size, start, rows in groups[order].tolist()]
            found = sorted(found)[:most]
        return [range(start, start + rows) for _, start, rows in found]

    def each_prompt(self, *, first: int = 0) -> Iterator[range]:
        """Yield the rows of each prompt that starts at or after `first`, in order."""
        number = max(0, int(np.searchsorted(self.shards.starts, first, side="right")) - 1)
        for at in range(number, len(self.shards.sources)):
            shard = self.shards.open(at)
            found = _between(shard, run_starts(shard.group_ids))
            yield from (rows for rows in found if rows.start >= first)

    def each_group(self) -> Iterator[range]:
        """Yield the rows of each group, in order."""
        for at in range(len(self.shards.sources)):
            shard = self.shards.open(at)
            yield from _between(shard, group_starts(shard.group_ids, shard.pair_ids))

    def share_prompts(self, rows: Sequence[int]) -> Deduplicated:
        """Return pairs, in any order, with each prompt and each of its completions once.

        Pairs of one prompt stay separate if their prompts have different tokens, as a tokenizer may
        merge tokens over the boundary.
        """
        pairs: list[PromptWithCompletions] = []
        places: dict[Any, list[int]] = {}
        for at, row in enumerate(rows):
            shard, place = self.shards.locate(row)
            pairs.append(shard.row(place))
            key = shard.group_ids[place].tobytes(), pairs[at].prompt.tobytes()
            places.setdefault(key, []).append(at)
        prompts: list[PromptWithCompletions] = []
        sides = np.zeros((len(rows), 2), np.int64)
        before = 0
        for some in places.values():
            joined, found = _join([pairs[at] for at in some])
            prompts.append(joined)
            sides[some] = before + found
            before += len(joined.completions)
        return Deduplicated(prompts, sides)

    def num_tokens(self, rows: Sequence[int]) -> int:
        """Return the number of tokens that the model runs over for these pairs."""
        if len(rows) == 1:
            shard, place = self.shards.locate(rows[0])
            return shard.size(place)
        return sum(prompt.num_tokens for prompt in self.share_prompts(rows).prompts)

    def pair_id(self, row: int) -> str:
        """Return the row's id in hex, as error messages show it."""
        shard, place = self.shards.locate(row)
        return bytes(shard.pair_ids[place]).hex()

    def largest_id(self) -> int:
        """Return the largest token id in any row; -1 if there is none. Every shard is read."""
        numbers = range(len(self.shards.sources))
        return max((self.shards.open(number).largest_id for number in numbers), default=-1)

    def num_without_margin(self) -> int:
        """Return the number of rows without a margin, by a pass over all shards."""
        return sum(self.shards.scan(lambda shard: int(np.isnan(shard.numbers("margin")).sum())))


def _join(
    pairs: Sequence[PromptWithCompletions],
) -> tuple[PromptWithCompletions, NDArray[np.int64]]:
    """Return pairs of one prompt as one row, and indices of chosen and rejected, (pairs, 2)."""
    place_of: dict[Any, int] = {}
    completions: list[Any] = []
    masks: list[Any] = []
    sides = []
    for pair in pairs:
        found = []
        for ids, mask in zip(pair.completions, pair.masks, strict=True):
            key = ids.tobytes(), None if mask is None else mask.tobytes()
            if key not in place_of:
                place_of[key] = len(completions)
                completions.append(ids)
                masks.append(mask)
            found.append(place_of[key])
        sides.append(found)
    return PromptWithCompletions(pairs[0].prompt, tuple(completions), tuple(masks)), np.array(
        sides, np.int64
    )


def _between(shard: TokenShard, starts: NDArray[np.int64]) -> Iterator[range]:
    """Yield the rows from each start in a shard to the next one, or its end."""
    edges = (shard.first + np.append(starts, len(shard.group_ids))).tolist()
    yield from (range(*two) for two in pairwise(edges))


def _group_sizes(shard: TokenShard) -> NDArray[np.int64]:
    """Return tokens, first row and number of rows of each group of a shard, (groups, 3)."""
    starts = group_starts(shard.group_ids, shard.pair_ids)
    rows = np.diff(starts, append=len(shard.group_ids))
    sizes = np.add.reduceat(of_pair(shard.lengths), starts) if len(starts) else starts
    return np.stack([sizes, shard.first + starts, rows], 1)


def _mask(column: pa.Array | None, place: int) -> NDArray[np.bool_] | None:
    """Return the mask of a row; None if all of its tokens count."""
    value = None if column is None else column[place]
    if value is None or not value.is_valid:
        return None
    return value.values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _ids(column: pa.ChunkedArray) -> Ids:
    """Return a column of 16 bytes as two numbers a row, (rows, 2)."""
    array = one_chunk(column)
    if not len(array):
        return np.zeros((0, 2), np.uint64)
    numbers = np.frombuffer(array.buffers()[1], np.uint64, 2 * len(array), 16 * array.offset)
    return numbers.reshape(-1, 2)
