"""Rows of a built split for training: views of the memory-mapped shards, without copies."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpo.data.packing import PromptWithCompletions


class _Lists(NamedTuple):
    """List column of one shard: row i is `values[offsets[i]:offsets[i + 1]]`."""

    offsets: NDArray[np.int32]
    values: NDArray[np.generic]
    valid: NDArray[np.bool_] | None

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "_Lists":
        array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        valid = None if array.null_count == 0 else np.asarray(array.is_valid())
        offsets = array.offsets.to_numpy()
        return cls(offsets, array.values.to_numpy(zero_copy_only=False), valid)

    def row(self, place: int) -> NDArray[np.generic] | None:
        if self.valid is not None and not self.valid[place]:
            return None
        return self.values[self.offsets[place] : self.offsets[place + 1]]


class Deduplicated(NamedTuple):
    """Pairs as the model runs them: each prompt once, and each distinct completion of it."""

    prompts: list[PromptWithCompletions]
    sides: NDArray[np.int64]
    """Indices of each pair's chosen and rejected among all completions, (rows, 2)."""


class Pairs:
    """Rows of one split, by index."""

    _columns = ("prompt_ids", "chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask")

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self._starts = np.cumsum([0, *(table.num_rows for table in tables)])
        self._shards = [[_Lists.of(table[name]) for name in self._columns] for table in tables]
        self.weights = _numbers(tables, "weight")
        self.margins = _numbers(tables, "margin")
        self._pair_ids = [table["pair_id"] for table in tables]
        self.prompts = _runs(tables, "group_id")
        """Index of each row's prompt, (rows,): the rows of one prompt are adjacent."""
        self.groups = _split_copies(tables, self.prompts)
        """Index of each row's group, (rows,): the pairs of a prompt. In a mixture, where a pair has
        several rows, each copy of the pairs is a group of its own."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> PromptWithCompletions:
        """Return prompt, chosen and rejected of a row, with its masks."""
        shard, place = self._locate(row)
        prompt, chosen, rejected, *masks = (column.row(place) for column in self._shards[shard])
        return PromptWithCompletions(prompt, (chosen, rejected), tuple(masks))  # type: ignore[arg-type]

    def _locate(self, row: int) -> tuple[int, int]:
        """Return the index of a row's shard, and its index in that."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return shard, row - int(self._starts[shard])

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of prompt, chosen and rejected of each row, (rows, 3)."""
        shards = [
            np.stack([np.diff(column.offsets) for column in columns[:3]], 1)
            for columns in self._shards
        ]
        return np.concatenate(shards).astype(np.int64) if shards else np.zeros((0, 3), np.int64)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Return the tokens of each row: prompt once, chosen and rejected, (rows,)."""
        sizes: NDArray[np.int64] = self.lengths.sum(1)
        return sizes

    @property
    def longest_texts(self) -> NDArray[np.int64]:
        """Return the tokens of each row's prompt and longer completion, (rows,)."""
        longest: NDArray[np.int64] = self.lengths[:, 0] + self.lengths[:, 1:].max(1)
        return longest

    @cached_property
    def group_sizes(self) -> NDArray[np.int64]:
        """Return the number of pairs of each group, (groups,)."""
        return np.bincount(self.groups)

    @cached_property
    def prompt_sizes(self) -> NDArray[np.int64]:
        """Return the number of rows of each prompt, (prompts,)."""
        return np.bincount(self.prompts)

    def share_prompts(self, rows: Sequence[int]) -> Deduplicated:
        """Return pairs, in any order, with each prompt and each of its completions once.

        Pairs of one prompt stay separate if their prompts have different tokens, as a tokenizer may
        merge tokens over the boundary.
        """
        places: dict[Any, list[int]] = {}
        for at, row in enumerate(rows):
            places.setdefault(self._prompt_key(row), []).append(at)
        prompts: list[PromptWithCompletions] = []
        sides = np.zeros((len(rows), 2), np.int64)
        before = 0
        for some in places.values():
            pairs = [self[rows[at]] for at in some]
            joined, found = _join(pairs)
            prompts.append(joined)
            sides[some] = before + found
            before += len(joined.completions)
        return Deduplicated(prompts, sides)

    def _prompt_key(self, row: int) -> Any:
        """Return a key of the row's prompt: equal keys are equal prompts."""
        prompt = self.prompts[row]
        return prompt if self.prompt_sizes[prompt] == 1 else (prompt, self[row].prompt.tobytes())

    def num_tokens(self, rows: Sequence[int]) -> int:
        """Return the number of tokens that the model runs over for these pairs."""
        if len(rows) == 1:
            return int(self.sizes[rows[0]])
        return sum(prompt.num_tokens for prompt in self.share_prompts(rows).prompts)

    def pair_id(self, row: int) -> str:
        """Return the row's id in hex, as error messages show it."""
        shard, place = self._locate(row)
        return str(self._pair_ids[shard][place].as_py().hex())

    def largest_id(self) -> int:
        """Return the largest token id in any row; -1 if there is none."""
        values = [column.values for columns in self._shards for column in columns[:3]]
        return max((int(ids.max()) for ids in values if len(ids)), default=-1)


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


def _ids(tables: Sequence[pa.Table], name: str) -> NDArray[np.uint64]:
    """Return a column of 16 bytes as two numbers a row, (rows, 2)."""
    arrays = [chunk for table in tables for chunk in table[name].chunks]
    parts = [
        np.frombuffer(array.buffers()[1], np.uint8)[16 * array.offset :][: 16 * len(array)]
        for array in arrays
        if len(array)
    ]
    return np.concatenate([np.zeros(0, np.uint8), *parts]).view(np.uint64).reshape(-1, 2)


def _runs(tables: Sequence[pa.Table], name: str) -> NDArray[np.int64]:
    """Number rows by runs of equal values in a column of 16 bytes."""
    keys = _ids(tables, name)
    is_new = np.ones(len(keys), np.int64)
    is_new[1:] = (keys[1:] != keys[:-1]).any(1)
    return np.cumsum(is_new) - 1


def _split_copies(tables: Sequence[pa.Table], prompts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number rows by prompt and copy: the n-th row of a pair is in the n-th group of its prompt.

    Rows a b c a b a of one prompt are the groups 0 0 0 1 1 2.
    """
    rows = np.flatnonzero(np.bincount(prompts)[prompts] > 1)
    ids = _ids(tables, "pair_id")[rows]
    order = np.lexsort((ids[:, 1], ids[:, 0]))  # stable: copies stay in the order of their rows
    is_first = np.ones(len(ids), np.bool_)
    is_first[1:] = (ids[order[1:]] != ids[order[:-1]]).any(1)
    if is_first.all():
        return prompts
    starts = np.flatnonzero(is_first)
    copy = np.zeros(len(prompts), np.int64)
    before = np.repeat(starts, np.diff(np.append(starts, len(ids))))
    copy[rows[order]] = np.arange(len(ids)) - before
    is_new = np.ones(len(prompts), np.int64)
    is_new[1:] = (prompts[1:] != prompts[:-1]) | (copy[1:] != copy[:-1])
    return np.cumsum(is_new) - 1


def _numbers(tables: Sequence[pa.Table], name: str) -> NDArray[np.float32]:
    """Return a column over all shards; NaN where it is null."""
    nothing = [np.zeros(0, np.float32)]
    return np.concatenate([table[name].to_numpy() for table in tables] or nothing).astype(
        np.float32
    )
