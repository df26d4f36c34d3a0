"""The rows of a built split as a trainer wants them: views of the mapped shards, nothing copied."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpo.packing import Prompted


class _Lists(NamedTuple):
    """A list column of one shard: row i is `values[offsets[i]:offsets[i + 1]]`."""

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


class Pairs:
    """Rows of one split, by their place in it."""

    _columns = ("prompt_ids", "chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask")

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self._starts = np.cumsum([0, *(table.num_rows for table in tables)])
        self._shards = [[_Lists.of(table[name]) for name in self._columns] for table in tables]
        self.weights = _numbers(tables, "weight")
        self.margins = _numbers(tables, "margin")
        self._pair_ids = [table["pair_id"] for table in tables]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> Prompted:
        """Prompt, chosen and rejected of a row, with the masks that it has."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        place = row - int(self._starts[shard])
        prompt, chosen, rejected, *masks = (column.row(place) for column in self._shards[shard])
        return Prompted(prompt, (chosen, rejected), tuple(masks))  # type: ignore[arg-type]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Tokens of each row: prompt once, chosen and rejected, (rows,)."""
        shards = [sum(np.diff(c.offsets) for c in columns[:3]) for columns in self._shards]
        return np.concatenate(shards).astype(np.int64) if shards else np.zeros(0, np.int64)

    def pair_id(self, row: int) -> str:
        """The row's id in hex, as error messages name it."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return str(self._pair_ids[shard][row - int(self._starts[shard])].as_py().hex())

    def largest_id(self) -> int:
        """The largest token id in any row; -1 where there is none."""
        values = [column.values for columns in self._shards for column in columns[:3]]
        return max((int(ids.max()) for ids in values if len(ids)), default=-1)


def _numbers(tables: Sequence[pa.Table], name: str) -> NDArray[np.float32]:
    """A column over all shards; NaN where it is null."""
    nothing = [np.zeros(0, np.float32)]
    return np.concatenate([table[name].to_numpy() for table in tables] or nothing).astype(
        np.float32
    )
