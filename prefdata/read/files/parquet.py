"""Checks of a Parquet file's footer and page headers, before anything is decompressed.

A page header gives the decompressed size and the number of values. Dictionaries and shared prefixes
expand further, so the longest value is read from the dictionary itself. pyarrow checks a column's
size statistics when Python reads its metadata; a fault there is an uncaught C++ exception, which
aborts the whole process (seen with pyarrow 26), so the footer is read here first.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from prefdata.read.limits import Budget

HEADER_BYTES = 1024
DICTIONARY_PAGE = 2
DATA_PAGES = {0: (5, 2), 3: (8, 4)}
"""Page types with values: number of their header field, and of the encoding inside it."""
DICTIONARY_ENCODINGS, DELTA_BYTE_ARRAY = (2, 8), 7
TEXT_KINDS = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
LEVEL_BYTES = 16
"""Bytes of one value in a list, for its levels and offset."""
_TAIL = 8  # the footer's length, and PAR1
_ROW_GROUPS, _COLUMNS, _META_DATA, _SIZES = 4, 1, 3, 16
_TEXT_BYTES, _REPETITIONS, _DEFINITIONS = 1, 2, 3


class Page(NamedTuple):
    """Contents of a page header."""

    at: int
    """Offset of the page's data."""
    packed: int
    unpacked: int
    encoding: int
    """-1 for a dictionary."""
    num_values: int


class Chunk(NamedTuple):
    """One column in one row group."""

    path: str
    in_list: bool
    page_bytes: int
    """Decompressed size of its dictionary plus its largest page."""
    num_values: int
    longest: int
    """Longest value, in bytes, that is larger in memory than in the file; 0 if there is none."""
    num_shared: int
    """Number of values that may be that long."""
    has_prefixes: bool


def row_group_chunks(file: pq.ParquetFile, path: Path, group: int, budget: Budget) -> list[Chunk]:
    """Return the sizes of a row group's columns; E113 if they are a decompression bomb."""
    about = file.metadata.row_group(group)
    schema = file.metadata.schema
    chunks: list[Chunk] = []
    with path.open("rb") as handle:
        for number in range(about.num_columns):
            leaf = schema.column(number)
            chunk = _chunk(handle, about.column(number), leaf, budget)
            chunks.append(chunk)
            budget.require(sum(each.page_bytes for each in chunks), "its pages")
            if chunk.in_list:
                budget.require(chunk.num_values * LEVEL_BYTES, f"the column {chunk.path!r}")
    return chunks


def _chunk(handle: BinaryIO, column: Any, leaf: Any, budget: Budget) -> Chunk:
    dictionary = largest = num_values = num_shared = longest = 0
    has_prefixes = False
    for page in _pages(handle, column, budget):
        if page.encoding < 0:
            dictionary = max(dictionary, page.unpacked)
            if column.physical_type in TEXT_KINDS:
                longest = max(longest, _longest(handle, page, column.compression))
            continue
        largest, num_values = max(largest, page.unpacked), num_values + page.num_values
        if page.encoding == DELTA_BYTE_ARRAY:
            has_prefixes, longest = True, max(longest, page.unpacked)
        if page.encoding in (*DICTIONARY_ENCODINGS, DELTA_BYTE_ARRAY):
            num_shared += page.num_values
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
        longest, num_shared = leaf.length, num_values
    return Chunk(
        column.path_in_schema,
        leaf.max_repetition_level > 0,
        dictionary + largest,
        num_values,
        longest,
        num_shared,
        has_prefixes,
    )


def _pages(handle: BinaryIO, column: Any, budget: Budget) -> Iterator[Page]:
    """Yield the pages of a chunk until all its values are covered."""
    first = column.dictionary_page_offset or column.data_page_offset
    at = min(first, column.data_page_offset)
    end, num_values = at + column.total_compressed_size, 0
    while at < end and num_values < column.num_values:
        header, size = _page_header(handle, at)
        kind, unpacked, packed = header[1], header[2], header[3]
        if packed < 0 or unpacked < 0:
            raise ValueError("a page header is broken")
        budget.require(unpacked, "a page")
        if kind == DICTIONARY_PAGE:
            yield Page(at + size, packed, unpacked, -1, 0)
        elif kind in DATA_PAGES:
            about, encoding = DATA_PAGES[kind]
            num_values += header[about][1]
            yield Page(at + size, packed, unpacked, header[about][encoding], header[about][1])
        at += size + packed


def _longest(handle: BinaryIO, page: Page, codec: str) -> int:
    """Return the longest entry of a dictionary page; the page size if the codec is unknown."""
    handle.seek(page.at)
    data = handle.read(page.packed)
    names = {"LZ4_RAW": "lz4_raw", "LZ4": "lz4_hadoop"}
    if codec != "UNCOMPRESSED":
        name = names.get(codec, codec.lower())
        if name == "lz4_hadoop" or not pa.Codec.is_available(name.removesuffix("_raw")):
            return page.unpacked
        data = pa.Codec(name).decompress(data, decompressed_size=page.unpacked, asbytes=True)
    longest, place = 0, 0
    while place + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, place)
        longest, place = max(longest, size), place + 4 + size
    return min(longest, page.unpacked)


def _page_header(handle: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """Return a header's fields by number, and its length."""
    size = HEADER_BYTES
    while True:
        handle.seek(at)
        data = handle.read(size)
        reader = Thrift(data)
        try:
            return reader.read_struct(), reader.at
        except IndexError:
            if len(data) < size or size > 2**24:  # statistics may be long
                raise ValueError("a page header is cut") from None
            size *= 16


class Thrift:
    """Reader of the part of Thrift's compact protocol that page headers and footers use."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read_byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.read_byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a page header is broken")

    def read_integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        if depth > 8:
            raise ValueError("a page header is broken")
        while True:
            head = self.read_byte()
            if head == 0:
                return fields
            number = number + (head >> 4) if head >> 4 else self.read_integer()
            fields[number] = self._value(head & 15, depth)

    def _value(self, kind: int, depth: int) -> Any:
        if kind == STRUCT:
            return self.read_struct(depth + 1)
        if kind == BINARY:
            size = self._varint()
            self.at += size
            return None
        if kind in LISTS:
            return self._list(depth)
        if kind == DOUBLE:
            self.at += 8
            return None
        if kind not in SCALARS:
            raise ValueError("a page header is broken")
        return SCALARS[kind](self)

    def _list(self, depth: int) -> list[Any]:
        if depth > 8:
            raise ValueError("a list is nested too deep")
        head = self.read_byte()
        size = self._varint() if head >> 4 == 15 else head >> 4
        if size > len(self.data):
            raise ValueError("a list is longer than its container")
        kind = head & 15
        if kind in (1, 2):  # booleans are bytes in lists
            return [self.read_byte() == 1 for _ in range(size)]
        return [self._value(kind, depth + 1) for _ in range(size)]


STRUCT, BINARY, DOUBLE, LISTS = 12, 8, 7, (9, 10)
SCALARS: dict[int, Callable[[Thrift], Any]] = {
    1: lambda _: True,
    2: lambda _: False,
    3: Thrift.read_byte,
    4: Thrift.read_integer,
    5: Thrift.read_integer,
    6: Thrift.read_integer,
}


def require_sound_sizes(path: Path, schema: pq.ParquetSchema) -> None:
    """Raise ValueError if a column's size statistics do not match its type or levels."""
    try:
        for group in _footer(path).get(_ROW_GROUPS, ()):
            for number, chunk in enumerate(group.get(_COLUMNS, ())):
                sizes = chunk.get(_META_DATA, {}).get(_SIZES)
                if sizes and number < len(schema):
                    _require_sound(sizes, schema.column(number))
    except (AttributeError, TypeError) as error:  # a field of the wrong type
        raise ValueError("its footer is broken") from error


def _require_sound(sizes: dict[int, Any], leaf: Any) -> None:
    levels = (
        (sizes.get(_REPETITIONS), leaf.max_repetition_level),
        (sizes.get(_DEFINITIONS), leaf.max_definition_level),
    )
    if any(counts and len(counts) != most + 1 for counts, most in levels):
        raise ValueError("its size statistics do not match their column's number of levels")
    if _TEXT_BYTES in sizes and leaf.physical_type != "BYTE_ARRAY":
        raise ValueError("its size statistics do not match their column's type")


def _footer(path: Path) -> dict[int, Any]:
    """Return the footer's fields by number; empty if only pyarrow can read it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
        if len(tail) < _TAIL or tail[4:] != b"PAR1":
            return {}
        (length,) = struct.unpack_from("<I", tail)
        if length + _TAIL > size:
            return {}
        file.seek(size - _TAIL - length)
        data = file.read(length)
    try:
        return Thrift(data).read_struct()
    except (IndexError, ValueError):
        return {}
