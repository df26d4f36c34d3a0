"""Format of a file, detected from its bytes, and its rows."""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import orjson

from prefdata.errors import UsageError
from prefdata.read.files.chunks import (
    Block,
    CsvBlock,
    ElementBlock,
    LineBlock,
    LineRange,
    LongLine,
    RowBlock,
    TableBlock,
    as_ranges,
    line_blocks,
)
from prefdata.read.files.csv import csv_blocks, csv_rows
from prefdata.read.files.csv_dialect import DELIMITERS, find_dialect, refuse_separated
from prefdata.read.files.json_array import array_blocks, element_rows, find_wrapper
from prefdata.read.files.jsonl import Row, Tally, line_rows, long_row, range_rows, unit_refusals
from prefdata.read.files.source import InputFile
from prefdata.read.files.tabular import (
    arrow_blocks,
    encrypted,
    parquet_blocks,
    table_rows,
)
from prefdata.read.files.unpack import MAGIC, HashedFile, Unpacker, refuse_foreign
from prefdata.read.limits import BOM, Limits

ENCRYPTED = b"PARE"
HEAD_BYTES = 64 * 1024
PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
PACKED = (".gz", ".zst")
UTF32_MARKS = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
WITHOUT_MARK_32 = re.compile(rb"(?:\0\0\0[^\0]){2}|(?:[^\0]\0\0\0){2}|\0\0\0[\[{]|[\[{]\0\0\0")
WITHOUT_MARK_16 = re.compile(rb"(?:\0[^\0]){4}|(?:[^\0]\0){4}|\0[\[{]|[\[{]\0")
CR_BETWEEN_ROWS = re.compile(rb"[}\]][ \t]*\r[ \t\r]*[{\[]")
PRETTY_OBJECT = re.compile(rb'\s*\{[ \t\r]*\n\s*"')


READERS: dict[type, Callable[..., Iterator[Row]]] = {
    LineBlock: line_rows,
    LineRange: range_rows,
    LongLine: long_row,
    ElementBlock: element_rows,
    CsvBlock: csv_rows,
    TableBlock: table_rows,
    RowBlock: unit_refusals,
}


def read_rows(block: Block, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the rows of a block, each an object or its fault."""
    return READERS[type(block)](block, limits, tally)


def open_blocks(
    file: InputFile, source: HashedFile, limits: Limits, tally: Tally
) -> Iterator[Block]:
    """Yield the blocks of a file of any supported format; reading is lazy."""
    magic = source.file.read(8)
    source.file.seek(0)
    if magic.startswith(PARQUET):
        return parquet_blocks(file.path, file.name, limits)
    if magic.startswith(ENCRYPTED):
        raise encrypted(file.name)
    if magic.startswith((ARROW_FILE, ARROW_STREAM)):
        is_stream = magic.startswith(ARROW_STREAM)
        return arrow_blocks(file.path, file.name, limits, is_stream=is_stream)
    head, blocks = _with_head(Unpacker(source, file.name, limits).blocks(magic))
    refuse_foreign(head, file.name, is_unpacked=magic.startswith(MAGIC))
    _refuse_other_encodings(head, file.name)
    delimiter = _delimiter(file.path)
    if delimiter:
        tally.bom += head.startswith(BOM)
        dialect = find_dialect(head, delimiter, file.name)
        return csv_blocks(blocks, limits, dialect, file.name, tally)
    wrapper = find_wrapper(head)
    if wrapper is not None:
        tally.notes.append(f"its rows are those of `{wrapper.key}`, a key of one JSON object")
    else:
        _refuse_yaml(head, file)
        _refuse_other_lines(head, file.name)
        refuse_separated(head, file.name)
    if wrapper is not None or _is_array(head):
        tally.bom += head.startswith(BOM)
        return array_blocks(blocks, file.name, limits, tally, wrapper.before if wrapper else b"")
    lines = line_blocks(blocks, limits)
    return lines if magic.startswith(MAGIC) else as_ranges(lines, file)


def _with_head(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first `HEAD_BYTES`, and an iterator over all blocks, the first included."""
    first: list[bytes] = []
    while sum(map(len, first)) < HEAD_BYTES:
        block = next(blocks, None)
        if block is None:
            break
        first.append(block)
    return b"".join(first)[:HEAD_BYTES], chain(first, blocks)


def _delimiter(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in PACKED]
    return DELIMITERS.get(suffixes[-1]) if suffixes else None


def _refuse_other_encodings(head: bytes, name: str) -> None:
    if head.startswith((PARQUET, ARROW_FILE)):
        raise UsageError("E112", name, "is a compressed table file", "decompress it first")
    if head.startswith(ARROW_STREAM):
        raise UsageError("E117", name, "is a compressed Arrow stream", "decompress it first")
    encoding = None
    if head.startswith(UTF32_MARKS) or WITHOUT_MARK_32.match(head):
        encoding = "UTF-32"
    elif head.startswith(UTF16_MARKS) or WITHOUT_MARK_16.match(head):
        encoding = "UTF-16"
    if encoding:
        raise UsageError("E102", name, f"is {encoding}, not UTF-8", "convert it with iconv")


def _refuse_yaml(head: bytes, file: InputFile) -> None:
    is_json = head.removeprefix(BOM).lstrip().startswith((b"{", b"["))
    if file.path.suffix.lower() in (".yaml", ".yml") and not is_json:
        remedy = f"run `prefdata build {file.name}` if it is a config, or name the files of data"
        raise UsageError("E112", file.name, "is YAML, a config or a layout, and not data", remedy)


def _refuse_other_lines(head: bytes, name: str) -> None:
    if b"\n" not in head and CR_BETWEEN_ROWS.search(head):
        remedy = "convert its line ends, for example with `tr '\\r' '\\n'`"
        raise UsageError("E103", name, "ends its lines with CR only", remedy)
    if PRETTY_OBJECT.match(head.removeprefix(BOM)):
        remedy = "write one object a line, for example with `jq -c .`"
        raise UsageError("E105", name, "spreads its objects over several lines", remedy)


def _is_array(head: bytes) -> bool:
    """Return whether the file is one array; False if the first of several lines is an array."""
    text = head.removeprefix(BOM).lstrip()
    if not text.startswith(b"["):
        return False
    first, _, rest = text.partition(b"\n")
    if not rest.strip():
        return True
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return True
    return False
