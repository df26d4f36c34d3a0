"""What one input is parted into: blocks of rows that anybody can read without the rest.

The bytes of an input alone decide where it is parted, so parts are the same whoever reads them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from prefdata.read.files.csv_quotes import Record
from prefdata.read.files.lines import RAW_BYTES_KEPT
from prefdata.read.files.source import InputFile, Stamp, stamp
from prefdata.read.limits import MIB, Limits

PART_BYTES = 16 * MIB
PART_LINES = 2**17
ITEM_BYTES = 256
"""What an item of a run takes besides its bytes: many tiny rows must not be one part."""


class LineBlock(NamedTuple):
    """Whole lines of a JSON Lines file."""

    line: int
    """Number of the first, from 1."""
    offset: int
    """Of its first byte in the unpacked file."""
    data: bytes


class LineRange(NamedTuple):
    """Whole lines of a file that is not packed: whoever reads them fetches them from it."""

    line: int
    offset: int
    num_bytes: int
    file: InputFile
    stamp: Stamp
    """Of the file when its lines were counted."""


class LongLine(NamedTuple):
    """A line that is longer than the limit, and was passed over unread."""

    line: int
    offset: int
    head: bytes


class ElementBlock(NamedTuple):
    """Elements of a JSON array: number, offset, bytes of each, and whether those are all."""

    elements: list[Any]


class CsvBlock(NamedTuple):
    """Records of a CSV file."""

    header: list[str]
    delimiter: str
    records: list[Record]


class TableBlock(NamedTuple):
    """Rows of a Parquet or Arrow file."""

    row: int
    """Number of the first, from 1."""
    batch: pa.RecordBatch
    schema: pa.Schema
    """Of the file; the batch has bytes for text where some of it is not UTF-8."""


class Member(NamedTuple):
    """A row that gives pairs only together with others."""

    line: int
    offset: int
    raw: bytes
    """Its bytes in the file; where those are of a table, the same as `json`."""
    json: bytes


class Unit(NamedTuple):
    """Rows of one prompt, or messages of one tree."""

    members: tuple[Member, ...]
    parents: tuple[int, ...]
    """Of messages: the place in the unit of the one that each replies to, -1 of the first."""


class RowBlock(NamedTuple):
    """Units of a file whose rows were gathered."""

    units: list[Unit]
    refused: list[tuple[int, int, bytes | None, Any]]
    """Rows that belong to no unit: line, offset, raw bytes, fault."""
    lines: int
    """How many the file has, in its first block; none in the others. So are the next three."""
    blank: int
    bom: int
    nulls: int = 0


Block = LineBlock | LineRange | LongLine | ElementBlock | CsvBlock | TableBlock | RowBlock


def line_blocks(chunks: Iterator[bytes], limits: Limits) -> Iterator[LineBlock | LongLine]:
    """Blocks of about `PART_BYTES`, each of whole lines, in bounded memory.

    A line that outgrows the limit is given as its first bytes, and the rest is passed over.
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
    """The lines as one block, or as several where they are many: each may be a refused row."""
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
    """The same blocks without their bytes, so that these need not go from process to process."""
    now = stamp(file)
    for block in blocks:
        if isinstance(block, LongLine):
            yield block
        else:
            yield LineRange(block.line, block.offset, len(block.data), file, now)


def _pass_over(passed: int, chunks: Iterator[bytes]) -> tuple[int, bytes]:
    """Bytes up to the end of the line, its 0x0A counted, and what follows of the last chunk."""
    for chunk in chunks:
        at = chunk.find(b"\n")
        if at >= 0:
            return passed + at + 1, chunk[at + 1 :]
        passed += len(chunk)
    return passed, b""


def by_size(
    items: Iterator[Any], size: Callable[[Any], int], most: int = PART_BYTES
) -> Iterator[list[Any]]:
    """Runs of items of about `most` bytes together."""
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
