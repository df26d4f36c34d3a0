"""Parquet and Arrow files to numbered rows, in memory independent of their claimed sizes."""

import base64
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prefdata.errors import UsageError
from prefdata.read.files.arrow_buffers import (
    count_fields,
    require_small_buffers,
    require_whole_stream,
    schema_of_message,
)
from prefdata.read.files.cells import RawRow, as_bytes, python_rows, require_readable
from prefdata.read.files.chunks import ITEM_BYTES, PART_BYTES, TableBlock
from prefdata.read.files.jsonl import Row, Tally, too_long
from prefdata.read.files.parquet import Chunk, require_sound_sizes, row_group_chunks
from prefdata.read.files.row_sizes import Span, least_bytes, spans
from prefdata.read.limits import MIB, Budget, Limits

BATCH_ROWS = 1024
BATCH_BYTES = 32 * MIB
"""Limit on the values of one batch that are larger in memory than in the file."""
TWICE_BYTES = 16 * MIB
SLICE_BYTES = 2 * MIB
"""Size of the rows that are converted to Python values together."""
FAULTS = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, struct.error, MemoryError)


def parquet_blocks(path: Path, name: str, limits: Limits) -> Iterator[TableBlock]:
    """Yield the rows of a Parquet file, numbered from 1."""
    budget = Budget(name, path.stat().st_size, limits)
    with _damaged(name, "Parquet"), pq.ParquetFile(path.absolute(), **_SMALL) as file:
        require_sound_sizes(path, file.schema)
        stated = (file.metadata.metadata or {}).get(b"ARROW:schema", b"")
        message = schema_of_message(base64.b64decode(stated)) if stated else None
        if message is not None:
            count_fields(message)
        require_readable(file.schema_arrow, name, limits)
        budget.require(file.metadata.num_rows * least_bytes(file.schema_arrow), "its rows")

        def batches() -> Iterator[pa.RecordBatch]:
            found = 0
            for group in range(file.num_row_groups):
                for batch in _row_group(file, path, group, budget):
                    found += batch.num_rows
                    yield batch
            if found != file.metadata.num_rows:
                message = f"it has {found:,} rows, and its footer says {file.metadata.num_rows:,}"
                raise ValueError(message)

        yield from _blocks(batches, file.schema_arrow, budget)


_SMALL = {"pre_buffer": False, "buffer_size": MIB, "thrift_container_size_limit": 100_000}


def _row_group(
    file: pq.ParquetFile, path: Path, group: int, budget: Budget
) -> Iterator[pa.RecordBatch]:
    """Yield batches small enough for values that expand from dictionaries and prefixes."""
    chunks = row_group_chunks(file, path, group, budget)
    shared = [chunk.path for chunk in chunks if _is_shared(chunk, budget)]
    largest = sum(chunk.longest for chunk in chunks if not chunk.in_list)
    rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(largest, 1)))
    how = {"batch_size": rows, "row_groups": [group], "use_threads": False}
    if not shared:
        yield from file.iter_batches(**how)
        return
    with pq.ParquetFile(path.absolute(), read_dictionary=shared, **_SMALL) as again:
        yield from again.iter_batches(**how)


def _is_shared(chunk: Chunk, budget: Budget) -> bool:
    """Return whether lists may repeat values too often to expand; E166 for shared prefixes."""
    if not chunk.in_list or chunk.longest * chunk.num_shared <= 2 * BATCH_BYTES:
        return False
    if chunk.has_prefixes:
        remedy = "write it with the encoding PLAIN or RLE_DICTIONARY"
        problem = f"the column {chunk.path!r} is encoded as DELTA_BYTE_ARRAY inside lists"
        raise UsageError("E166", budget.name, problem, remedy)
    return True


def arrow_blocks(path: Path, name: str, limits: Limits, *, is_stream: bool) -> Iterator[TableBlock]:
    """Yield the rows of an Arrow file, or of a complete stream, as `save_to_disk` writes."""
    budget = Budget(name, path.stat().st_size, limits)
    open_ipc = pa.ipc.open_stream if is_stream else pa.ipc.open_file
    with _damaged(name, "Arrow"):
        (require_whole_stream if is_stream else require_small_buffers)(path, budget)
        with pa.OSFile(str(path)) as source, open_ipc(source) as file:
            schema = file.schema
        require_readable(schema, name, limits)
        least = least_bytes(schema)

        def batches() -> Iterator[pa.RecordBatch]:
            with pa.OSFile(str(path)) as source, open_ipc(source) as file:
                numbers = () if is_stream else range(file.num_record_batches)
                for batch in file if is_stream else map(file.get_batch, numbers):
                    budget.require(batch.num_rows * least, "its rows")
                    yield batch

        yield from _blocks(batches, schema, budget)


def _blocks(
    batches: Callable[[], Iterator[pa.RecordBatch]], schema: pa.Schema, budget: Budget
) -> Iterator[TableBlock]:
    """Yield a table's blocks; E113 before the first row if the file can be decompressed twice."""
    if budget.file_bytes <= TWICE_BYTES:
        for _ in _slices(batches(), budget):
            pass
    yield from _numbered(batches(), schema, budget)


def _numbered(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, budget: Budget
) -> Iterator[TableBlock]:
    """Yield blocks of about `PART_BYTES`; larger batches are sliced."""
    row, total = 1, 0
    run: list[pa.RecordBatch] = []
    for part, size in _slices(batches, budget):
        # Slices of different types, text and bytes, cannot form one batch.
        if run and (total + size > PART_BYTES or part.schema.types != run[0].schema.types):
            yield _block(row, run, schema)
            row, run, total = row + sum(each.num_rows for each in run), [], 0
        run.append(part)
        total += size + ITEM_BYTES
    if run:
        yield _block(row, run, schema)


def _block(row: int, parts: list[pa.RecordBatch], schema: pa.Schema) -> TableBlock:
    (batch,) = pa.Table.from_batches(parts).combine_chunks().to_batches()
    return TableBlock(row, batch, schema)


def _slices(
    batches: Iterator[pa.RecordBatch], budget: Budget
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield checked slices of at most `PART_BYTES` with their sizes; E113 for a bomb."""
    total = 0
    for batch in batches:
        batch.validate()
        found = []
        for span in spans(batch, budget.limits):  # before the check of all text, which may be slow
            total += int(span.sizes.sum())
            budget.require(total, "its rows")
            found.append(span)
        checked = _checked(batch)
        for start, count, size in _cut(found, batch.num_rows, PART_BYTES):
            yield checked.slice(start, count), size


def _cut(found: Iterable[Span], num_rows: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, count and size of runs of rows of at most `most` bytes, or of one row."""
    start = size = 0
    for span in found:
        for row, num_bytes in enumerate(span.sizes.tolist(), start=span.start):
            if row > start and size + num_bytes > most:
                yield start, row - start, size
                start, size = row, 0
            size += num_bytes
    if start < num_rows:
        yield start, num_rows - start, size


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch after Arrow's own check; as bytes if its text is not all UTF-8."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        batch = as_bytes(batch)
        batch.validate(full=True)
    return batch


def table_rows(block: TableBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the rows of a table; their offset is -1, because they are not separate bytes."""
    number, batch = block.row, block.batch
    most = min(SLICE_BYTES, limits.max_line_bytes)  # an over-long row is separate
    for start, count, size in _cut(spans(batch, limits), batch.num_rows, most):
        part = batch.slice(start, count)
        if size > limits.max_line_bytes:
            found: Iterator[RawRow] = iter([(b"", too_long(limits))])
        else:
            found = python_rows(part, block.schema, limits)
        for raw, value in found:
            tally.lines += 1
            yield number, -1, raw, value
            number += 1


@contextmanager
def _damaged(name: str, kind: str) -> Iterator[None]:
    """Raise E114 for any error of a table reader, E165 for an encrypted file."""
    try:
        yield
    except FAULTS as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        if "ncrypt" in problem or "ecrypt" in problem:
            raise encrypted(name) from error
        place = f"is a damaged {kind} file: {problem}"
        raise UsageError("E114", name, place, "fetch it again, or write it again") from error


def encrypted(name: str) -> UsageError:
    return UsageError("E165", name, "is an encrypted Parquet file", "decrypt it first")
