"""Arrow arrays of Python values, and rows of unequal length as Arrow lists store them.

Values are converted through polars: `pyarrow.array` imports pandas, if that is installed, at its
first call, which takes a third of a second.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
DTYPES = {
    pa.string(): pl.String(),
    pa.binary(): pl.Binary(),
    pa.bool_(): pl.Boolean(),
    pa.int16(): pl.Int16(),
    pa.int32(): pl.Int32(),
    pa.int64(): pl.Int64(),
    pa.float32(): pl.Float32(),
    pa.float64(): pl.Float64(),
}


def arrow_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return an array of one of the types that records have; None is null."""
    if isinstance(kind, pa.FixedSizeBinaryType):
        buffers = [None, pa.py_buffer(b"".join(values))]
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), buffers)
    array = pl.Series(values, dtype=DTYPES[kind]).to_arrow()
    return array if array.type == kind else array.cast(kind)


def numbers_array(values: NDArray[np.generic]) -> pa.Array:
    """Return a numpy array of numbers or booleans as an Arrow array."""
    return pl.Series(values).to_arrow()


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return the chunks of a column as one array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def empty_table(schema: pa.Schema) -> pa.Table:
    """Return a table of this schema without rows."""
    return pa.Table.from_batches([], schema=schema)


class Ragged(NamedTuple):
    """Rows of unequal length: row n is `values[offsets[n]:offsets[n + 1]]`.

    Worked example: rows [7, 8], [], [9] are values [7, 8, 9] and offsets [0, 2, 2, 3].
    """

    values: NDArray[Any]
    offsets: Int64s

    @property
    def lengths(self) -> Int64s:
        return np.diff(self.offsets)

    @property
    def owners(self) -> Int64s:
        """Return the row number of each value."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    def row(self, number: int) -> NDArray[Any]:
        return self.values[self.offsets[number] : self.offsets[number + 1]]


def from_lengths(values: NDArray[Any], lengths: Int64s) -> Ragged:
    """Return rows of these lengths, stored one after the other in `values`."""
    return Ragged(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def stack(parts: Sequence[Ragged], dtype: type[np.generic]) -> Ragged:
    """Return all rows of the first part, then all of the next."""
    values = np.concatenate([np.zeros(0, dtype), *(part.values for part in parts)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
    return from_lengths(values, lengths)


def positions(starts: Int64s, lengths: Int64s) -> Int64s:
    """Return every row's positions: starts [5, 9] and lengths [2, 1] give [5, 6, 9]."""
    ends: Int64s = np.cumsum(lengths)
    shifts: Int64s = np.repeat(starts - (ends - lengths), lengths)
    return shifts + np.arange(len(shifts))


def cut(rows: Ragged, starts: Int64s, stops: Int64s) -> Ragged:
    """Return each row's values from its start up to its stop."""
    lengths: Int64s = stops - starts
    return from_lengths(rows.values[positions(rows.offsets[:-1] + starts, lengths)], lengths)


def take(rows: Ragged, index: Int64s) -> Ragged:
    """Return the rows at these indices, in this order."""
    starts = rows.offsets[index]
    lengths = rows.offsets[index + 1] - starts
    return from_lengths(rows.values[positions(starts, lengths)], lengths)


def join(left: Ragged, right: Ragged) -> Ragged:
    """Return each row of `left` followed by the same row of `right`."""
    lengths = left.lengths + right.lengths
    joined = from_lengths(np.empty(int(lengths.sum()), left.values.dtype), lengths)
    starts = joined.offsets[:-1]
    joined.values[positions(starts, left.lengths)] = left.values
    joined.values[positions(starts + left.lengths, right.lengths)] = right.values
    return joined


def common_prefix(left: Ragged, right: Ragged) -> Int64s:
    """Return the length of the common prefix of each row of `left` and the same row of `right`."""
    shorter = np.minimum(left.lengths, right.lengths)
    differs = np.flatnonzero(
        left.values[positions(left.offsets[:-1], shorter)]
        != right.values[positions(right.offsets[:-1], shorter)]
    )
    owners = np.repeat(np.arange(len(shorter)), shorter)[differs]
    is_first = np.diff(owners, prepend=-1) > 0
    owners, differs = owners[is_first], differs[is_first]
    shorter[owners] = differs - (np.cumsum(shorter) - shorter)[owners]
    return shorter


def to_arrow(rows: Ragged, kind: pa.DataType) -> pa.Array:
    """Return an Arrow list array over the same memory."""
    if len(rows.values) > np.iinfo(np.int32).max:
        message = "a shard has more tokens than an Arrow list can hold; lower shard_rows"
        raise OverflowError(message)
    return pa.ListArray.from_arrays(
        numbers_array(rows.offsets.astype(np.int32)), numbers_array(rows.values), type=kind
    )
