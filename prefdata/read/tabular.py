"""Parquet and Arrow files to numbered rows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prefdata.errors import UsageError
from prefdata.read.blocks import PART_BYTES, TableBlock, by_size
from prefdata.read.limits import Limits
from prefdata.read.rows import Row, Tally

BATCH_ROWS = 1024


def parquet_blocks(path: Path, name: str) -> Iterator[TableBlock]:
    """Rows of a Parquet file, numbered from 1."""
    try:
        with pq.ParquetFile(path) as file:
            yield from _numbered(file.iter_batches(batch_size=BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "Parquet", error) from error


def arrow_blocks(path: Path, name: str) -> Iterator[TableBlock]:
    """Rows of an Arrow IPC file, numbered from 1."""
    try:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
            yield from _numbered(file.get_batch(n) for n in range(file.num_record_batches))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "Arrow", error) from error


def _numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[TableBlock]:
    """Blocks of about `PART_BYTES`; a batch that is larger is sliced."""
    row = 1
    for run in by_size(_sliced(batches), lambda batch: batch.nbytes):
        (batch,) = pa.Table.from_batches(run).combine_chunks().to_batches()
        yield TableBlock(row, batch)
        row += batch.num_rows


def _sliced(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)
        rows = max(1, batch.num_rows * PART_BYTES // max(batch.nbytes, 1))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def table_rows(block: TableBlock, _limits: Limits, tally: Tally) -> Iterator[Row]:
    """The rows of a table; they have no bytes of their own, so their offset is -1."""
    for start in range(0, block.batch.num_rows, BATCH_ROWS):
        values = block.batch.slice(start, BATCH_ROWS).to_pylist()
        for row, value in enumerate(values, start=block.row + start):
            tally.lines += 1
            yield row, -1, None, value


def _damaged(name: str, kind: str, error: Exception) -> UsageError:
    problem = " ".join(str(error).split())[:200]
    return UsageError("E114", name, f"is a damaged {kind} file: {problem}", "fetch it again")
