"""Record boundaries of a CSV file: quotes followed byte by byte, in bounded memory.

The rules are those of RFC 4180 and Python's csv: a quote opens a quoted field only as the field's
first byte; elsewhere in an unquoted field it is text. Inside a quoted field, line ends and
delimiters are text, and two quotes are one.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from prefdata.errors import UsageError
from prefdata.read.limits import RAW_BYTES_KEPT

START, TEXT, QUOTED, CLOSING = range(4)
"""States of a scanner: before a field, in an unquoted one, in a quoted one, after a quote."""


class Record(NamedTuple):
    """The bytes of one record without the 0x0A that ends it."""

    line: int
    """Number of its first line, from 1."""
    offset: int
    data: bytes
    """Only its first bytes when it is longer than the limit."""
    whole: bool


class Scanner:
    """A state machine over bytes that come in chunks."""

    def __init__(self, delimiter: str) -> None:
        self._mark = delimiter.encode()
        mark = re.escape(self._mark)
        self.state = START
        self.broken_at = -1
        """Position of text after a closing quote in the data scanned last, or -1."""
        self._ends = re.compile(b"[\n" + mark + b"]")
        # A complete, well-formed field with its delimiter or line end: the fast path.
        quoted, plain = rb'"[^"]*+(?:""[^"]*+)*+"', b'[^"\n' + mark + b"][^\n" + mark + b"]*+"
        self._field = re.compile(b"(?:" + quoted + b"|" + plain + b"|)(?:(" + mark + b")|\r?\n)")

    def find_end(self, data: bytes, at: int) -> int:
        """Return the position after the record's 0x0A, or -1 if the data ends before it."""
        if self.state <= TEXT and data.find(b'"', at) < 0:
            end = data.find(b"\n", at) + 1
            self.state = START if end or data.endswith(self._mark) else TEXT
            return end or -1
        while at < len(data):
            field = self._field.match(data, at) if self.state == START else None
            if field is None:
                at = self._step(data, at)
                ended = at > 0 and self.state == START and data[at - 1] == 0x0A
            else:
                at, ended = field.end(), field.start(1) < 0
            if ended:
                return at
        return -1

    def find_field_end(self, data: bytes, at: int) -> int:
        """Return the position after the next field's delimiter, or -1 if there is none."""
        while at < len(data):
            at = self._step(data, at)
            if self.state == START:
                return at
        return -1

    def _step(self, data: bytes, at: int) -> int:
        """Advance by one change of state."""
        if self.state == START:
            self.state = QUOTED if data[at] == 0x22 else TEXT
            return at + (self.state == QUOTED)
        if self.state == TEXT:
            found = self._ends.search(data, at)
            self.state = START if found else TEXT
            return found.end() if found else len(data)
        if self.state == QUOTED:
            quote = data.find(b'"', at)
            self.state = QUOTED if quote < 0 else CLOSING
            return len(data) if quote < 0 else quote + 1
        self.state = QUOTED if data[at] == 0x22 else TEXT
        if self.state == TEXT and data[at] != 0x0D and not self._ends.match(data, at):
            self.broken_at = at
        return at + (self.state == QUOTED)


class _Open:
    """The record that is being read."""

    def __init__(self) -> None:
        self.line, self.offset = 1, 0
        self.held, self.size, self.newlines = b"", 0, 0

    def add(self, data: bytes, max_bytes: int) -> None:
        self.size += len(data)
        self.newlines += data.count(b"\n")
        if self.size <= max_bytes + 1:
            self.held += data
        elif len(self.held) < RAW_BYTES_KEPT:
            self.held = (self.held + data)[:RAW_BYTES_KEPT]
        else:
            self.held = self.held[:RAW_BYTES_KEPT]

    def take(self, max_bytes: int) -> Record:
        """Return the record and reset for the next one."""
        size = self.size - self.held.endswith(b"\n") if self.size == len(self.held) else self.size
        whole = size <= max_bytes
        data = self.held.removesuffix(b"\n") if whole else self.held[:RAW_BYTES_KEPT]
        record = Record(self.line, self.offset, data, whole)
        self.line, self.offset = self.line + self.newlines, self.offset + self.size
        self.held, self.size, self.newlines = b"", 0, 0
        return record


def split_records(
    chunks: Iterator[bytes], delimiter: str, max_bytes: int, name: str
) -> Iterator[Record]:
    """Yield every record; of one over the limit only the first bytes are kept.

    Raises E161 if a bad quote affects more than its own line: the next record's start is unknown.
    """
    scanner, record = Scanner(delimiter), _Open()
    for chunk in chunks:
        start, quote = 0, -1
        while start < len(chunk):
            if quote < start:
                quote = chunk.find(b'"', start)
                quote = len(chunk) if quote < 0 else quote
            fresh = not record.size and scanner.state == START
            end = chunk.find(b"\n", start, quote) + 1 if fresh else 0
            if not end:
                end = scanner.find_end(chunk, start)
                _require_order(scanner, record, chunk, start, name)
            record.add(chunk[start : end if end > 0 else len(chunk)], max_bytes)
            if end < 0:
                break
            yield record.take(max_bytes)
            start = end
    if not record.size:
        return
    if scanner.state == QUOTED and record.newlines:
        raise _spoiled(record, name, "opens a quote that is never closed", record.newlines)
    yield record.take(max_bytes)


def _require_order(scanner: Scanner, record: _Open, chunk: bytes, start: int, name: str) -> None:
    """Raise E161 if a quoted field of several lines has text after its closing quote."""
    if scanner.broken_at < 0:
        return
    above = record.newlines + chunk.count(b"\n", start, scanner.broken_at)
    scanner.broken_at = -1
    if above:
        problem = "has text after its closing quote"
        raise _spoiled(record, name, problem, above)


def _spoiled(record: _Open, name: str, problem: str, above: int) -> UsageError:
    last = record.line + above
    problem = f"a field {problem}, so the rows in lines {record.line:,} to {last:,} are unclear"
    remedy = "write a quote inside a quoted field twice, and quote fields that begin with one"
    return UsageError("E161", f"{name}:{record.line}", problem, remedy)
