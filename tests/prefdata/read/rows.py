"""All rows of one file, read as a build reads them."""

from functools import reduce
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.arrow import empty_table
from prefdata.read import (
    Columns,
    InputFile,
    Layout,
    Limits,
    LineCounts,
    Pairing,
    RowOptions,
    TextRule,
    notes_of,
    open_rows,
    read_part,
)
from prefdata.records.keys import SOURCE_ROWS
from prefdata.records.schema import RECORDS, REJECTED


class FileRows(NamedTuple):
    """Results of reading one file."""

    records: pa.Table
    rejected: pa.Table
    counts: LineCounts
    layout: str
    size_bytes: int
    sha256: str
    members: pl.DataFrame
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    """Notes on how it was read, in addition to the layout."""


def read_file(
    file: InputFile,
    *,
    layout: Layout | None = None,
    pairing: Pairing = Pairing(),  # noqa: B008 - immutable
    limits: Limits = Limits(),  # noqa: B008 - immutable
    columns: Columns = Columns(),  # noqa: B008 - immutable
    text: TextRule = TextRule(),  # noqa: B008 - immutable
) -> FileRows:
    """Return the records and refused rows of a file; a PrefdataError for a fault of the file."""
    rows = open_rows(file, RowOptions(layout, pairing, limits), columns, text)
    parts = [read_part(file, block, rows.options) for block in rows.blocks]
    end, fitted = rows.file.end, rows.fitted
    assert end is not None
    counts = reduce(LineCounts.plus, (part.counts for part in parts), LineCounts(bom=end.bom))
    return FileRows(
        pa.concat_tables([empty_table(RECORDS), *(part.records for part in parts)]),
        pa.concat_tables([empty_table(REJECTED), *(part.rejected for part in parts)]),
        counts,
        fitted.layout.name if fitted.layout else "",
        end.size_bytes,
        end.sha256,
        pl.concat([pl.DataFrame(schema=SOURCE_ROWS), *(part.members for part in parts)]),
        notes_of(end, counts),
        fitted.said,
    )
