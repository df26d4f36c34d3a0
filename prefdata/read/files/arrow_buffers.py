"""Sizes of an Arrow file's buffers, read from its messages before anything is decompressed.

An Arrow file is a sequence of flatbuffers messages, each followed by its buffers. A compressed
buffer begins with its decompressed size. See https://arrow.apache.org/docs/format/Columnar.html.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from prefdata.errors import UsageError
from prefdata.read.limits import Budget

TAIL = b"ARROW1"
CONTINUES, END_OF_STREAM = 0xFFFFFFFF, b"\xff\xff\xff\xff\0\0\0\0"
SCHEMA, DICTIONARY = 1, 2
"""Kinds of messages."""
BLOCK_BYTES, NODE_BYTES, BUFFER_BYTES = 24, 16, 16
MAX_FIELDS = 20_000
MAX_MESSAGE = 2**26


def require_small_buffers(path: Path, budget: Budget) -> None:
    """Raise E113 if a record batch, or all dictionaries together, decompress to too much."""
    with path.open("rb") as handle:
        handle.seek(-10, 2)
        tail = handle.read(10)
        (size,) = struct.unpack("<i", tail[:4])
        if tail[4:] != TAIL or not 0 < size <= min(budget.file_bytes, MAX_MESSAGE):
            raise ValueError("its footer is broken")
        handle.seek(-10 - size, 2)
        footer = _root(handle.read(size))
        schema = footer.table(1)
        if schema is not None:
            count_fields(schema)
        dictionaries = sum(_unpacked(handle, place) for place in footer.blocks(2))
        budget.require(dictionaries, "its dictionaries")
        for place in footer.blocks(3):
            budget.require(dictionaries + _unpacked(handle, place), "a record batch")


def require_whole_stream(path: Path, budget: Budget) -> None:
    """Walk the messages of an Arrow stream up to its end marker.

    Raises UsageError: E117 if the marker is missing, as in a truncated stream; E113 if a record
    batch, or all dictionaries together, decompress to too much.
    """
    dictionaries = 0
    with path.open("rb") as handle:
        for place, message in _messages(handle, budget):
            kind, schema = message.byte(1), message.table(2)
            if kind == SCHEMA:
                if schema is not None:
                    count_fields(schema)
                continue
            unpacked = _unpacked(handle, place)
            dictionaries += unpacked if kind == DICTIONARY else 0
            budget.require(dictionaries + unpacked, "a record batch")


def _messages(handle: BinaryIO, budget: Budget) -> Iterator[tuple[tuple[int, int, int], "Table"]]:
    """Yield each message of a stream with its location, as `blocks` does; E117 without an end."""
    at = 0
    while True:
        handle.seek(at)
        head = handle.read(8)
        if head == END_OF_STREAM:
            if at + len(head) != budget.file_bytes:
                raise ValueError("bytes follow its end")
            return
        mark, size = struct.unpack("<Ii", head) if len(head) == 8 else (CONTINUES, 0)
        if mark != CONTINUES or not 0 <= size <= MAX_MESSAGE:
            raise ValueError("a message is broken")
        data = handle.read(size)
        if not data or len(data) < size:
            raise _cut(budget.name)
        message = _root(data)
        body = message.long(3)
        if body < 0 or at + 8 + size + body > budget.file_bytes:
            raise _cut(budget.name)
        yield (at, 8 + size, body), message
        at += 8 + size + body


def _cut(name: str) -> UsageError:
    problem = "is an Arrow stream without an end: it was cut, or is still being written"
    return UsageError("E117", name, problem, "fetch or save it again")


def count_fields(schema: "Table") -> int:
    """Return the number of fields; few bytes can make many, because fields may be shared."""
    count, waiting = 0, list(schema.tables(1))
    while waiting:
        field = waiting.pop()
        waiting.extend(field.tables(5))
        count += 1
        if count + len(waiting) > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS:,} columns and fields")
    return count


def schema_of_message(data: bytes) -> "Table | None":
    """Return the schema in a single message, the form that Parquet files contain."""
    start = 8 if data[:4] == b"\xff\xff\xff\xff" else 4
    return _root(data[start:]).table(2)


def _unpacked(handle: BinaryIO, place: tuple[int, int, int]) -> int:
    """Return the size of one message's body, in bytes, after its buffers are decompressed."""
    offset, meta_bytes, body_bytes = place
    if not 0 <= meta_bytes <= MAX_MESSAGE or offset < 0:
        raise ValueError("its footer is broken")
    handle.seek(offset)
    data = handle.read(meta_bytes)
    message = _root(data[8:] if data[:4] == b"\xff\xff\xff\xff" else data[4:])
    batch = message.table(2)
    if batch is not None and message.byte(1) == 2:  # a dictionary holds a batch
        batch = batch.table(1)
    if batch is None or not batch.has(3):
        return body_bytes
    total = 0
    for start, size in batch.pairs(2):
        if size < 8:
            continue
        handle.seek(offset + meta_bytes + start)
        head = handle.read(8)
        (unpacked,) = struct.unpack("<q", head) if len(head) == 8 else (-1,)
        total += size if unpacked < 0 else unpacked
    return total


def _root(data: bytes) -> "Table":
    return Table(data, struct.unpack_from("<I", data)[0])


class Table:
    """A flatbuffers table; fields are read by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - struct.unpack_from("<i", data, at)[0]
        (self.size,) = struct.unpack_from("<H", data, self.fields)

    def place(self, number: int) -> int:
        slot = 4 + 2 * number
        if slot + 2 > self.size:
            return 0
        (offset,) = struct.unpack_from("<H", self.data, self.fields + slot)
        return self.at + int(offset) if offset else 0

    def has(self, number: int) -> bool:
        return self.place(number) > 0

    def byte(self, number: int) -> int:
        place = self.place(number)
        return self.data[place] if place else 0

    def long(self, number: int) -> int:
        place = self.place(number)
        return int(struct.unpack_from("<q", self.data, place)[0]) if place else 0

    def table(self, number: int) -> "Table | None":
        place = self.place(number)
        return self._at(place) if place else None

    def _at(self, place: int) -> "Table":
        return Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])

    def _vector(self, number: int, item_bytes: int) -> range:
        """Return the offsets of a vector's items."""
        place = self.place(number)
        if not place:
            return range(0)
        start = place + struct.unpack_from("<I", self.data, place)[0]
        (length,) = struct.unpack_from("<I", self.data, start)
        if start + 4 + length * item_bytes > len(self.data):
            raise ValueError("a message is broken")
        return range(start + 4, start + 4 + length * item_bytes, item_bytes)

    def tables(self, number: int) -> Iterator["Table"]:
        return (self._at(place) for place in self._vector(number, 4))

    def pairs(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield items of two numbers: offset and length, as buffers have them."""
        for place in self._vector(number, BUFFER_BYTES):
            yield struct.unpack_from("<qq", self.data, place)

    def blocks(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Yield offset, length of the message, and length of its body, for each block."""
        for place in self._vector(number, BLOCK_BYTES):
            yield struct.unpack_from("<qi4xq", self.data, place)
