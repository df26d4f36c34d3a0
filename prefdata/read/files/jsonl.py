"""What every file format gives: numbered rows, each a JSON object or the fault that it has."""

from collections.abc import Iterator

from prefdata.read.faults import RowError
from prefdata.read.files.chunks import LineBlock, LineRange, LongLine, RowBlock
from prefdata.read.files.lines import BOM, LAST, LONG, RAW_BYTES_KEPT, split_lines
from prefdata.read.files.parse_json import Object, parse_line
from prefdata.read.files.source import require_unchanged
from prefdata.read.limits import Limits

BLANKS = b" \t\r"


# (line, offset, raw, value): raw is None where the format has no bytes of its own for a row.
Row = tuple[int, int, bytes | None, Object | RowError]


class Tally:
    """What a file held besides its rows."""

    def __init__(self) -> None:
        self.lines = self.blank = self.bom = 0
        self.nulls = 0  # that a table's types added, and that are left out
        self.notes: list[str] = []


def line_rows(block: LineBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """JSON Lines: one object a line; blank lines and byte order marks are counted."""
    data, first, start = iter([block.data]), block.line, block.offset
    for number, offset, line, state in split_lines(data, limits.max_line_bytes, first, start):
        tally.lines += 1
        if state == LONG:
            yield number, offset, line, too_long(limits)
            continue
        if line.startswith(BOM):
            tally.bom += 1
            line = line[len(BOM) :]
        if not line.strip(BLANKS):
            tally.blank += 1
            continue
        try:
            value: Object | RowError = parse_line(line, limits)
        except RowError as fault:
            value = _truncated(fault) if state == LAST else fault
            line = kept_of(line, fault)
        yield number, offset, line, value


def range_rows(block: LineRange, limits: Limits, tally: Tally) -> Iterator[Row]:
    """The same of lines that are still in their file."""
    with block.file.path.open("rb") as handle:
        handle.seek(block.offset)
        data = handle.read(block.num_bytes)
    require_unchanged(block.file, block.stamp, is_whole=len(data) == block.num_bytes)
    yield from line_rows(LineBlock(block.line, block.offset, data), limits, tally)


def long_row(block: LongLine, limits: Limits, tally: Tally) -> Iterator[Row]:
    """A line that nobody read."""
    tally.lines += 1
    yield block.line, block.offset, block.head, too_long(limits)


def unit_refusals(block: RowBlock, _limits: Limits, tally: Tally) -> Iterator[Row]:
    """The rows of a gathered file that belong to no unit; the tally of the whole file."""
    tally.lines += block.lines
    tally.blank += block.blank
    tally.bom += block.bom
    tally.nulls += block.nulls
    yield from block.refused


def kept_of(raw: bytes, fault: RowError) -> bytes:
    """What is kept of a refused row: all of it, but of a row that was not read its beginning."""
    return raw[:RAW_BYTES_KEPT] if fault.code == "R216" else raw


def too_long(limits: Limits) -> RowError:
    return RowError("R212", f"longer than {limits.max_line_bytes:,} bytes; not read")


def _truncated(fault: RowError) -> RowError:
    """A last line that does not parse and has no 0x0A was most likely cut: truncated_tail."""
    if fault.code != "R201":
        return fault
    return RowError("R201", f"{fault.message}; truncated_tail: the file ends inside this line")
