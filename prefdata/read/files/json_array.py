"""Elements of one JSON array, each with its offset and original bytes, in bounded memory.

The array is the whole file, or the one value of an object: `{"version": 1, "data": [...]}`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import orjson

from prefdata.errors import UsageError
from prefdata.read.faults import RowError
from prefdata.read.files.chunks import ElementBlock, by_size
from prefdata.read.files.jsonl import Row, Tally, kept_of, too_long
from prefdata.read.files.parse_json import Object, parse_line
from prefdata.read.limits import BOM, RAW_BYTES_KEPT, Limits

# A whole string is one token, so brackets and commas inside it are skipped. A string cut by the
# end of a chunk has no closing quote.
INSIDE = rb'[^"\\]*+(?:\\.[^"\\]*+)*+'
TOKEN = re.compile(rb'"' + INSIDE + rb'("?)|[\[\]{},]', re.DOTALL)
REST = re.compile(INSIDE, re.DOTALL)
OPENS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
SPACES = b" \t\r\n"
WRAPPER = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*\{(?:\s*"[^"\\]{1,80}"\s*:\s*(?:"[^"\\]*"|[-+.\w]+)\s*,)*'
    rb'\s*"(data|rows|examples|items|records|instances|train|test)"\s*:\s*(?=\[\s*\{)'
)
"""An object up to the array of its rows; keys before it have scalar values."""
MAX_TRAILER = 1 << 20  # bytes after the array of such an object
MAX_NESTING = 100_000
"""Nesting beyond which scanning stops, since no such element can be parsed."""


class Element(NamedTuple):
    """One element without surrounding whitespace."""

    number: int
    line: int
    """The line of the file on which it begins, from 1."""
    offset: int
    data: bytes
    """The element's bytes; only the first ones if it is longer than the limit."""
    whole: bool


def array_blocks(
    chunks: Iterator[bytes], name: str, limits: Limits, tally: Tally, before: bytes = b""
) -> Iterator[ElementBlock]:
    """Yield the elements of an array in blocks; element numbers, from 1, replace line numbers.

    `before` are the first bytes of the file, if the array is the value of an object.
    """
    elements = _Elements(name, limits, before)
    found = (element for chunk in chunks for element in elements.read(chunk))
    for run in by_size(found, lambda element: len(element.data)):
        tally.element_lines.extend(element.line for element in run)
        yield ElementBlock(run)
    elements.require_end()


class Wrapper(NamedTuple):
    """An object that is a whole file, and holds the array of its rows."""

    key: str
    before: bytes
    """The bytes of the file before the array."""


def find_wrapper(head: bytes) -> Wrapper | None:
    """Return the object around an array of rows, if a file begins with one.

    >>> find_wrapper(b'{"version": 1, "data": [{"prompt"').key
    'data'
    >>> find_wrapper(b'{"prompt": [{"role"')
    """
    found = WRAPPER.match(head)
    if found is None:
        return None
    first, _, rest = head.partition(b"\n")
    if rest.strip():
        try:  # JSON Lines: the object is one row of several
            orjson.loads(first)
        except orjson.JSONDecodeError:
            return Wrapper(found[1].decode(), found[0])
        return None
    return Wrapper(found[1].decode(), found[0])


def element_rows(block: ElementBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the elements as rows."""
    for element in block.elements:
        tally.lines += 1
        value: Object | RowError = too_long(limits)
        raw = element.data
        if element.whole:
            try:
                value = parse_line(raw, limits)
            except RowError as fault:
                value, raw = fault, kept_of(raw, fault)
        yield element.number, element.offset, raw, value


class _Elements:
    """State of a scan over an array's chunks."""

    def __init__(self, name: str, limits: Limits, before: bytes) -> None:
        self.name, self.limits = name, limits
        self.before, self.after = before, b""
        """Bytes of the object around the array."""
        self.to_skip = len(before)
        self.depth = self.number = self.num_bytes = 0
        self.in_string = self.ended = False
        self.cut = b""
        """A backslash at a chunk's end; the character that it escapes is in the next chunk."""
        self.held, self.size, self.start, self.line = b"", 0, 0, 0
        """Bytes, size, offset and line of the element that is being read."""
        self.num_lines, self.breaks = 0, np.zeros(0, np.int64)
        """Line ends before this chunk, and the offsets of those in it."""

    def read(self, chunk: bytes) -> Iterator[Element]:
        """Yield the elements that end in this chunk."""
        base, first = self.num_bytes - len(self.cut), 0
        self.num_bytes += len(chunk)
        data, self.cut = self.cut + chunk, b""
        self.num_lines += len(self.breaks)
        self.breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A) + base
        skipped, self.to_skip = min(self.to_skip, len(data)), max(self.to_skip - len(data), 0)
        first = skipped
        for mark, at in self._marks(data, skipped):
            opened, self.depth = self.depth == 0, self.depth + OPENS.get(mark, 0)
            if opened:
                if mark != b"[" or self.ended:
                    raise self._broken(base + at, "there is more after its closing bracket")
                first, self.start = at + 1, base + at + 1
            elif self.depth == 0 or (self.depth == 1 and mark == b","):
                self._hold(data[first:at])
                yield from self._take(base + at, mark)
                first, self.start = at + 1, base + at + 1
                if self.ended and self.before:
                    break
        self._keep_rest(data[first : len(data) - len(self.cut)])

    def _keep_rest(self, data: bytes) -> None:
        """Keep the bytes after a chunk's last comma or bracket; E105 if they break the array."""
        if self.depth > 0:
            self._hold(data)
        elif self.ended and self.before:
            self.after += data
            if len(self.after) > MAX_TRAILER:
                raise self._broken(self.num_bytes, "there is more after its closing bracket")
        elif self.ended and data.strip(SPACES):
            raise self._broken(self.num_bytes, "there is more after its closing bracket")
        if self.depth > MAX_NESTING:
            raise self._broken(self.num_bytes, f"it is nested deeper than {MAX_NESTING:,} levels")
        if self.num_bytes > self.limits.max_array_bytes:
            problem = f"is one JSON array of more than {self.limits.max_array_bytes:,} bytes"
            raise UsageError("E105", self.name, problem, "write one object a line (JSON Lines)")

    def require_end(self) -> None:
        """Raise E105 if the array has no closing bracket."""
        if not self.ended:
            raise self._broken(self.num_bytes, "it ends before its closing bracket")
        if self.before:
            self._require_object()

    def _require_object(self) -> None:
        """Raise E105 if what surrounds the array is not an object whose only rows are its own."""
        try:
            around = orjson.loads(self.before.removeprefix(BOM) + b"[]" + self.after)
        except orjson.JSONDecodeError:
            problem = "the object around it is not JSON, or other rows follow it"
            raise self._broken(self.num_bytes, problem) from None
        others = [key for key, value in around.items() if isinstance(value, list) and value]
        if others:
            problem = f"has rows or lists in several keys of one object: also in `{others[0]}`"
            remedy = (
                "write each list of rows as a file of its own, for example with `jq -c '.KEY[]'`"
            )
            raise UsageError("E105", self.name, problem, remedy)

    def _marks(self, data: bytes, at: int) -> Iterator[tuple[bytes, int]]:
        """Yield brackets and commas outside strings from `at` on, with their positions."""
        if self.ended and self.before:
            return
        if self.in_string:
            at = self._end_of_string(data, 0)
        for token in TOKEN.finditer(data, at) if not self.in_string else ():
            if token.group(1) is None:
                yield token.group(), token.start()
            elif not token.group(1):
                self.in_string = True
                self._end_of_string(data, token.end())
                return

    def _end_of_string(self, data: bytes, at: int) -> int:
        """Return the position after the closing quote, or the end of data within the string."""
        found = REST.match(data, at)
        end = found.end() if found else at
        if data[end : end + 1] == b'"':
            self.in_string = False
            return end + 1
        self.cut = data[end:]
        return end

    def _hold(self, data: bytes) -> None:
        if not self.size:
            lean = data.lstrip(SPACES)
            self.start, data = self.start + len(data) - len(lean), lean
            self.line = 1 + self.num_lines + int(np.searchsorted(self.breaks, self.start))
        self.size += len(data)
        if self.size <= self.limits.max_line_bytes or len(self.held) < RAW_BYTES_KEPT:
            self.held += data
        if self.size > self.limits.max_line_bytes:
            self.held = self.held[:RAW_BYTES_KEPT]

    def _take(self, at: int, mark: bytes) -> Iterator[Element]:
        """Yield the element that ends at a comma or at the closing bracket."""
        if mark == b"}":
            raise self._broken(at, "a brace closes it")
        whole = self.size == len(self.held)
        data = self.held.rstrip(SPACES) if whole else self.held
        if self.size:
            self.number += 1
            yield Element(self.number, self.line, self.start, data, whole)
        elif mark == b"," or self.number:
            raise self._broken(at, "an element is missing")
        self.held, self.size = b"", 0
        self.ended = mark == b"]"

    def _broken(self, at: int, problem: str) -> UsageError:
        remedy = "write one object a line (JSON Lines), for example with `jq -c '.[]'`"
        problem = f"the JSON array is broken at byte {at:,}: {problem}"
        return UsageError("E105", self.name, problem, remedy)
