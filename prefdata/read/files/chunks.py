"""Chunks of one input: blocks of rows, each readable without the others.

Boundaries depend only on the bytes of the input, so every worker sees the same chunks.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from prefdata.read.files.csv_quotes import Record
from prefdata.read.files.source import InputFile, Stamp, stamp
from prefdata.read.limits import MIB, RAW_BYTES_KEPT, Limits

PART_BYTES = 16 * MIB
PART_LINES = 2**17
ITEM_BYTES = 256
"""Overhead per item, added to its bytes, so that many tiny rows do not form one huge chunk."""


class LineBlock(NamedTuple):
    """Whole lines of a JSON Lines file."""

    line: int
    """Number of the first line, from 1."""
    offset: int
    """Offset of the first byte in the decompressed file."""
    data: bytes


class LineRange(NamedTuple):
    """A byte range of whole lines in an uncompressed file; the worker reads it itself."""

    line: int
    offset: int
    num_bytes: int
    file: InputFile
    stamp: Stamp
    """Stamp of the file when its lines were counted."""


class LongLine(NamedTuple):
    """A line that is longer than the limit and was skipped unread."""

    line: int
    offset: int
    head: bytes


class ElementBlock(NamedTuple):
    """Elements of a JSON array: number, offset, bytes, and whether the bytes are complete."""

    elements: list[Any]


class CsvBlock(NamedTuple):
    """Records of a CSV file."""

    header: list[str]
    delimiter: str
    records: list[Record]


class TableBlock(NamedTuple):
    """Rows of a Parquet or Arrow file."""

    row: int
    """Number of the first row, from 1."""
    batch: pa.RecordBatch
    schema: pa.Schema
    """Schema of the file; the batch has bytes in place of text if some of it is not UTF-8."""


class Member(NamedTuple):
    """A row that forms pairs only together with other rows."""

    line: int
    offset: int
    raw: bytes
    """The row's bytes in the file; for rows of a table, equal to `json`."""
    json: bytes


class Unit(NamedTuple):
    """Rows of one prompt, or messages of one tree."""

    members: tuple[Member, ...]
    parents: tuple[int, ...]
    """For messages: index in `members` of the message replied to, -1 for the first."""


class RowBlock(NamedTuple):
    """Units of a file whose rows were gathered."""

    units: list[Unit]
    refused: list[tuple[int, int, bytes | None, Any]]
    """Rows that belong to no unit: line, offset, raw bytes, fault."""
    lines: int
    """Lines of the whole file, in its first block; 0 in the others. The next three likewise."""
    blank: int
    bom: int
    nulls: int = 0


Block = LineBlock | LineRange | LongLine | ElementBlock | CsvBlock | TableBlock | RowBlock


def narrowed(block: Block, lines: Collection[int]) -> Block:
    """Return the block with at least the rows of some lines, and fewer others if that is cheap."""
    if isinstance(block, ElementBlock):
        return ElementBlock([one for one in block.elements if one.number in lines])
    if isinstance(block, CsvBlock):
        return block._replace(records=[one for one in block.records if one.line in lines])
    if isinstance(block, TableBlock):
        first = max(min(lines), block.row)
        last = min(max(lines), block.row + block.batch.num_rows - 1)
        some = block.batch.slice(first - block.row, max(last - first + 1, 0))
        return block._replace(row=first, batch=some)
    return block


def line_blocks(chunks: Iterator[bytes], limits: Limits) -> Iterator[LineBlock | LongLine]:
    """Yield blocks of about `PART_BYTES`, each of whole lines, in bounded memory.

    Of a line over the limit only the first bytes are kept; the rest is skipped.
    """
    held = bytearray()
    line, offset = 1, 0
    for chunk in chunks:
        held += chunk
        if len(held) < PART_BYTES:
            continue
        end = held.rfind(b"\n") + 1
        if end == 0 and len(held) > limits.max_line_bytes:
            head = bytes(held[:RAW_BYTES_KEPT])
            passed, rest = _pass_over(len(held), chunks)
            yield LongLine(line, offset, head)
            line, offset, held = line + 1, offset + passed, bytearray(rest)
        elif end:
            with memoryview(held) as view:
                data = bytes(view[:end])
            yield from _by_lines(line, offset, data)
            line, offset = line + data.count(b"\n"), offset + end
            del held[:end]
    if held:
        yield from _by_lines(line, offset, bytes(held))


def _by_lines(line: int, offset: int, data: bytes) -> Iterator[LineBlock]:
    """Yield the lines as blocks of at most `PART_LINES`: each line may be a refused row."""
    if data.count(b"\n") <= PART_LINES:
        yield LineBlock(line, offset, data)
        return
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A)[PART_LINES - 1 :: PART_LINES] + 1
    start = 0
    for end in [*ends.tolist(), len(data)]:
        if end > start:
            yield LineBlock(line, offset + start, data[start:end])
            line, start = line + PART_LINES, end


def as_ranges(
    blocks: Iterator[LineBlock | LongLine], file: InputFile
) -> Iterator[LineRange | LongLine]:
    """Replace blocks by byte ranges, so that their bytes are not sent between processes."""
    now = stamp(file)
    for block in blocks:
        if isinstance(block, LongLine):
            yield block
        else:
            yield LineRange(block.line, block.offset, len(block.data), file, now)


def _pass_over(passed: int, chunks: Iterator[bytes]) -> tuple[int, bytes]:
    """Return the number of bytes up to and with the line's 0x0A, and the rest of that chunk."""
    for chunk in chunks:
        at = chunk.find(b"\n")
        if at >= 0:
            return passed + at + 1, chunk[at + 1 :]
        passed += len(chunk)
    return passed, b""


def by_size(
    items: Iterator[Any], size: Callable[[Any], int], most: int = PART_BYTES
) -> Iterator[list[Any]]:
    """Group items into lists of about `most` bytes each."""
    run: list[Any] = []
    num_bytes = 0
    for item in items:
        run.append(item)
        num_bytes += size(item) + ITEM_BYTES
        if num_bytes >= most:
            yield run
            run, num_bytes = [], 0
    if run:
        yield run
