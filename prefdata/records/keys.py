"""Keys of records: ids and locations without texts, narrow enough for millions.

A 16-byte id is two numbers here, its first and its last eight bytes.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.arrow import whole

Numbers = NDArray[np.uint64]

KEY_COLUMNS: dict[str, type[pl.DataType]] = {
    "line": pl.Int64,
    "ordinal": pl.Int32,
    "pair_id_hi": pl.UInt64,
    "pair_id_lo": pl.UInt64,
    "group_id_hi": pl.UInt64,
    "group_id_lo": pl.UInt64,
    "chosen_id": pl.UInt64,
    "rejected_id": pl.UInt64,
}
REJECTED_LINES: dict[str, type[pl.DataType]] = {"line": pl.Int64, "ordinal": pl.Int32}
"""Location of each rejected row and pair; the ordinal of a row is -1."""
SOURCE_ROWS: dict[str, type[pl.DataType]] = {
    "line": pl.Int64,
    "ordinal": pl.Int32,
    "member": pl.Int64,
}
"""Source rows of a pair made from several rows: its line and ordinal, and each other row's line."""
PAIR_ID = ("pair_id_hi", "pair_id_lo")
GROUP_ID = ("group_id_hi", "group_id_lo")


def within(keys: pl.DataFrame, columns: tuple[str, ...]) -> list[str]:
    """Return the columns, plus `split` if the keys have it, to compare within each split."""
    return [*columns, "split"] if "split" in keys.columns else list(columns)


def keys_of(records: pa.Table) -> pl.DataFrame:
    """Return one row of KEY_COLUMNS for each record, in order."""
    columns: dict[str, Any] = {name: pl.Series(records[name]) for name in ("line", "ordinal")}
    for names in (PAIR_ID, GROUP_ID, ("chosen_id",), ("rejected_id",)):
        halves = _halves(records[names[0].removesuffix("_hi")])
        columns |= {name: halves[:, at] for at, name in enumerate(names)}
    return pl.DataFrame(columns, schema=KEY_COLUMNS)


def _halves(column: pa.ChunkedArray) -> Numbers:
    """Return both halves of each id, (rows, 2)."""
    ids = whole(column)
    start = ids.offset * 16
    data = np.frombuffer(ids.buffers()[1] or b"", np.uint8)[start : start + len(ids) * 16]
    return data.view(">u8").reshape(-1, 2).astype(np.uint64)
