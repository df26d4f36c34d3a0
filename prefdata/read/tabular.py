"""Parquet, Arrow and CSV files to numbered rows."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefdata.errors import UsageError
from prefdata.read.blocks import PART_BYTES, CsvBlock, TableBlock, by_size
from prefdata.read.faults import RowFault
from prefdata.read.guard import Object
from prefdata.read.limits import Limits
from prefdata.read.lines import BOM, LONG, split_lines
from prefdata.read.rows import Row, Tally, too_long

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


def csv_blocks(chunks: Iterator[bytes], limits: Limits, delimiter: str) -> Iterator[CsvBlock]:
    """Records of a CSV file with a header, numbered by their first line."""
    records = _records(chunks, limits.max_line_bytes)
    header: list[str] = []
    while not header:
        first = next(records, None)
        if first is None:
            return
        header = _header(first[2].removeprefix(BOM), delimiter)
    for run in by_size(records, lambda record: len(record[2])):
        yield CsvBlock(header, delimiter, run)


def csv_rows(block: CsvBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """The records as rows; every value is text."""
    for number, offset, record, whole in block.records:
        tally.lines += 1
        if not record.strip():
            tally.blank += 1
            continue
        if not whole:
            yield number, offset, record, too_long(limits)
            continue
        try:
            value: Object | RowFault = _csv_object(record, block.header, block.delimiter)
        except RowFault as found:
            value = found
        yield number, offset, record, value


def _records(blocks: Iterator[bytes], max_bytes: int) -> Iterator[tuple[int, int, bytes, bool]]:
    """Lines joined while a quoted field is open: its quotes are then odd in number."""
    parts: list[bytes] = []
    first, start, size, whole, odd = 1, 0, 0, True, False
    for number, offset, line, state in split_lines(blocks, max_bytes):
        if not parts:
            first, start, size, whole, odd = number, offset, 0, True, False
        odd ^= bool(line.count(b'"') % 2)
        size += len(line) + 1
        whole = whole and state != LONG and size <= max_bytes
        if whole or not parts:
            parts.append(line)
        if not odd or state == LONG:
            yield first, start, b"\n".join(parts), whole
            parts = []
    if parts:
        yield first, start, b"\n".join(parts), whole


def _header(record: bytes, delimiter: str) -> list[str]:
    return next(csv.reader([record.decode(errors="replace").rstrip("\r")], delimiter=delimiter), [])


def _csv_object(record: bytes, header: list[str], delimiter: str) -> dict[str, Any]:
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise RowFault("R202", f"not UTF-8 at byte {error.start} of the row") from None
    if "\0" in text:
        raise RowFault("R201", "the row holds NUL bytes")
    lines = re.split(r"(?<=\n)", text.removesuffix("\r"))
    try:
        fields = next(csv.reader(lines, delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration) as error:
        raise RowFault("R201", f"not a row of CSV: {error}") from None
    if len(fields) != len(header):
        raise RowFault("R201", f"{len(fields)} fields where the header has {len(header)}")
    return dict(zip(header, fields, strict=True))
