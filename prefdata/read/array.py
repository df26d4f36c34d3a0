"""One JSON array to its elements, each with its place and its own bytes."""

import re
from collections.abc import Iterator

from prefdata.errors import UsageError
from prefdata.read.blocks import ElementBlock, by_size
from prefdata.read.faults import RowFault
from prefdata.read.guard import Object, parse_line
from prefdata.read.limits import Limits
from prefdata.read.lines import RAW_BYTES_KEPT
from prefdata.read.rows import Row, Tally, too_long

# Whole strings are one token, so brackets and commas inside of them are never seen.
TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]', re.DOTALL)
OPENS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
SPACES = b" \t\r\n"


def array_blocks(data: bytes, name: str) -> Iterator[ElementBlock]:
    """The elements of an array, numbered from 1 where a JSON Lines file has line numbers."""
    elements = (
        (number, start, data[start:end])
        for number, (start, end) in enumerate(_elements(data, name), start=1)
    )
    for run in by_size(elements, lambda element: len(element[2])):
        yield ElementBlock(run)


def element_rows(block: ElementBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """The elements as rows."""
    for number, start, raw in block.elements:
        tally.lines += 1
        if len(raw) > limits.max_line_bytes:
            yield number, start, raw[:RAW_BYTES_KEPT], too_long(limits)
            continue
        try:
            value: Object | RowFault = parse_line(raw, limits)
        except RowFault as fault:
            value = fault
        yield number, start, raw, value


def _elements(data: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Start and end of each element, without the spaces around it."""
    start = first = data.index(b"[") + 1
    depth = end = 0
    for mark, at in _marks(data):
        depth += OPENS.get(mark, 0)
        if depth > 1 or (depth == 1 and mark != b","):
            continue
        span = _trim(data, start, at)
        if span[0] < span[1]:
            yield span
        elif depth or start > first:
            raise _broken(name, at, "an element is missing")
        start = at + 1
        if depth == 0:
            end = start
            break
    if not end:
        raise _broken(name, len(data), "it ends before its closing bracket")
    if data[end:].strip(SPACES):
        raise _broken(name, end, "there is more after its closing bracket")


def _marks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Brackets and commas outside of strings, and where they are."""
    for token in TOKEN.finditer(data):
        mark = token.group()
        if len(mark) == 1:
            yield mark, token.start()


def _trim(data: bytes, start: int, end: int) -> tuple[int, int]:
    while start < end and data[start] in SPACES:
        start += 1
    while end > start and data[end - 1] in SPACES:
        end -= 1
    return start, end


def _broken(name: str, at: int, problem: str) -> UsageError:
    remedy = "write one object a line (JSON Lines), for example with `jq -c '.[]'`"
    return UsageError("E105", name, f"the JSON array is broken at byte {at:,}: {problem}", remedy)
