"""Numbered rows, each a JSON object or its fault: the output of every file format."""

from array import array
from collections.abc import Collection, Iterator

from prefdata.read.faults import RowError
from prefdata.read.files.chunks import LineBlock, LineRange, LongLine, RowBlock
from prefdata.read.files.parse_json import Object, parse_line
from prefdata.read.files.source import require_unchanged
from prefdata.read.limits import BOM, RAW_BYTES_KEPT, Limits

BLANKS = b" \t\r"


# (line, offset, raw, value): raw is None if the format does not store rows as separate bytes.
Row = tuple[int, int, bytes | None, Object | RowError]


class Tally:
    """Counts and notes of a file, in addition to its rows."""

    def __init__(self) -> None:
        self.lines = self.blank = self.bom = 0
        self.nulls = 0  # added by a table's types, and removed again
        self.element_lines = array("q")
        """Line of each element of a JSON array."""
        self.notes: list[str] = []


def line_rows(block: LineBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the rows of JSON Lines, and count blank lines and byte order marks.

    Only 0x0A ends a line: U+2028, U+0085 and a lone CR are text, or the parser handles them.
    """
    lines = block.data.split(b"\n")
    if not lines[-1]:  # nothing follows the final 0x0A
        lines.pop()
    after, end = block.offset, block.offset + len(block.data)
    for number, line in enumerate(lines, block.line):
        offset, after = after, after + len(line) + 1
        tally.lines += 1
        if len(line) > limits.max_line_bytes:
            yield number, offset, line[:RAW_BYTES_KEPT], too_long(limits)
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
            value = _truncated(fault) if after > end else fault
            line = kept_of(line, fault)
        yield number, offset, line, value


def range_rows(block: LineRange, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Read a byte range from its file and yield its rows; E115 if the file has changed."""
    yield from line_rows(read_range(block), limits, tally)


def raw_lines(block: LineBlock | LineRange, lines: Collection[int]) -> dict[int, bytes]:
    """Return the bytes of some lines, unparsed and without a byte order mark."""
    block = read_range(block) if isinstance(block, LineRange) else block
    found = block.data.split(b"\n")
    places = ((line, line - block.line) for line in lines)
    return {line: found[at].removeprefix(BOM) for line, at in places if 0 <= at < len(found)}


def read_range(block: LineRange) -> LineBlock:
    """Read a byte range from its file; E115 if the file has changed."""
    with block.file.path.open("rb") as handle:
        handle.seek(block.offset)
        data = handle.read(block.num_bytes)
    require_unchanged(block.file, block.stamp, is_whole=len(data) == block.num_bytes)
    return LineBlock(block.line, block.offset, data)


def long_row(block: LongLine, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the one refusal (R212) of a line over the limit."""
    tally.lines += 1
    yield block.line, block.offset, block.head, too_long(limits)


def unit_refusals(block: RowBlock, _limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the rows of a gathered file that belong to no unit, and add the file's counts."""
    tally.lines += block.lines
    tally.blank += block.blank
    tally.bom += block.bom
    tally.nulls += block.nulls
    yield from block.refused


def kept_of(raw: bytes, fault: RowError) -> bytes:
    """Return the bytes to keep of a refused row: all, but only the first of an unread one."""
    return raw[:RAW_BYTES_KEPT] if fault.code == "R216" else raw


def too_long(limits: Limits) -> RowError:
    return RowError("R212", f"longer than {limits.max_line_bytes:,} bytes; not read")


def _truncated(fault: RowError) -> RowError:
    """Add truncated_tail to a parse error: a last line without 0x0A was most likely cut."""
    if fault.code != "R201":
        return fault
    return RowError("R201", f"{fault.message}; truncated_tail: the file ends inside this line")
