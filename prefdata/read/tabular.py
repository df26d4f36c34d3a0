"""Parquet, Arrow and CSV files to numbered rows."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefdata.errors import UsageError
from prefdata.read.faults import RowFault
from prefdata.read.guard import Object
from prefdata.read.limits import Limits
from prefdata.read.lines import BOM, LONG, split_lines
from prefdata.read.rows import Row, Tally

BATCH_ROWS = 1024


def parquet_rows(path: Path, name: str, tally: Tally) -> Iterator[Row]:
    """Rows of a Parquet file, numbered from 1; they have no bytes, so their offset is -1."""
    try:
        with pq.ParquetFile(path) as file:
            yield from _batch_rows(file.iter_batches(batch_size=BATCH_ROWS), tally)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "Parquet", error) from error


def arrow_rows(path: Path, name: str, tally: Tally) -> Iterator[Row]:
    """Rows of an Arrow IPC file, numbered from 1."""
    try:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
            batches = (file.get_batch(n) for n in range(file.num_record_batches))
            yield from _batch_rows(batches, tally)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "Arrow", error) from error


def _batch_rows(batches: Iterator[pa.RecordBatch], tally: Tally) -> Iterator[Row]:
    for batch in batches:
        batch.validate(full=True)
        for value in batch.to_pylist():
            tally.lines += 1
            yield tally.lines, -1, None, value


def _damaged(name: str, kind: str, error: Exception) -> UsageError:
    problem = " ".join(str(error).split())[:200]
    return UsageError("E114", name, f"is a damaged {kind} file: {problem}", "fetch it again")


def csv_rows(
    blocks: Iterator[bytes], limits: Limits, tally: Tally, *, delimiter: str
) -> Iterator[Row]:
    """Rows of a CSV file with a header; every value is text. Numbered by their first line."""
    header: list[str] = []
    for number, offset, record, whole in _records(blocks, limits.max_line_bytes):
        if number == 1 and record.startswith(BOM):
            tally.bom += 1
            record = record[len(BOM) :]
        if not header:
            header = _header(record, delimiter)
            continue
        tally.lines += 1
        if not record.strip():
            tally.blank += 1
            continue
        if not whole:
            fault = RowFault("R212", f"longer than {limits.max_line_bytes:,} bytes; not read")
            yield number, offset, record, fault
            continue
        try:
            value: Object | RowFault = _csv_object(record, header, delimiter)
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
