"""Conversion of Python values to Arrow arrays.

It goes through polars: `pyarrow.array` imports pandas, if that is installed, at its first call,
which takes a third of a second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

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
