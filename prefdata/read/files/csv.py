"""CSV and TSV files to numbered rows.

Records are counted twice: `split_records` follows the quotes through the bytes, and csv.reader
counts the same records again when a block is read. A record on which they differ is refused.
"""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefdata.read.faults import RowError
from prefdata.read.files.chunks import CsvBlock, by_size
from prefdata.read.files.csv_dialect import Dialect, likely_encoding, read_header
from prefdata.read.files.csv_quotes import Scanner, split_records
from prefdata.read.files.jsonl import Row, Tally, too_long
from prefdata.read.files.parse_json import Object
from prefdata.read.limits import BOM, MIB, Limits
from prefdata.records.secrets import quote

RUN_BYTES = MIB // 4
"""Bytes of records that are parsed together; small, so that their fields take little memory."""
MANY_FIELDS = 2**16


def csv_blocks(
    chunks: Iterator[bytes], limits: Limits, dialect: Dialect, name: str, tally: Tally
) -> Iterator[CsvBlock]:
    """Yield the records of a file with a header, each numbered by its first line."""
    if dialect.note:
        tally.notes.append(dialect.note)
    records = split_records(chunks, dialect.delimiter, limits.max_line_bytes, name)
    header: list[str] = []
    for record in records:
        if record.line <= dialect.skip_lines or is_blank(record.data, dialect.delimiter):
            continue
        header, note = read_header(record, dialect.delimiter, name)
        if note:
            tally.notes.append(note)
        break
    for run in by_size(records, lambda record: len(record.data)):
        yield CsvBlock(header, dialect.delimiter, run)


def is_blank(data: bytes, delimiter: str) -> bool:
    """Return whether a line is blank; in a TSV file, tabs between empty fields are a row."""
    return not data.removeprefix(BOM).strip(b" \r" if delimiter == "\t" else None)


def csv_rows(block: CsvBlock, limits: Limits, tally: Tally) -> Iterator[Row]:
    """Yield the records as rows; every value is text."""
    parser = _Parser(block.header, block.delimiter, limits)
    for run in by_size(iter(block.records), lambda record: len(record.data), RUN_BYTES):
        kinds = [
            "blank" if is_blank(record.data, block.delimiter) else "row" if record.whole else "long"
            for record in run
        ]
        full = [record for record, kind in zip(run, kinds, strict=True) if kind == "row"]
        values = iter(parser.parse([_without_bom(record.data, tally) for record in full]))
        for record, kind in zip(run, kinds, strict=True):
            tally.lines += 1
            if kind == "blank":
                tally.blank += 1
                continue
            value = next(values) if kind == "row" else too_long(limits)
            yield record.line, record.offset, record.data, value


def _without_bom(data: bytes, tally: Tally) -> bytes:
    """Strip and count a byte order mark at the start of a line, as in JSON Lines."""
    if data.startswith(BOM):
        tally.bom += 1
        return data[len(BOM) :]
    return data


class _Parser:
    """csv.reader with checks on sizes, encoding and the number of fields."""

    def __init__(self, header: list[str], delimiter: str, limits: Limits) -> None:
        self.header, self.delimiter, self.limits = header, delimiter, limits

    def parse(self, records: Sequence[bytes]) -> list[Object | RowError]:
        """Return each record's object or fault; in one call if no record has a fault."""
        mark = self.delimiter.encode()
        few = sum(data.count(mark) for data in records) <= MANY_FIELDS
        if few and not any(b"\0" in data for data in records):
            try:
                texts = [data.decode() for data in records]
                with _long_fields(self.limits):
                    rows = list(csv.reader(texts, delimiter=self.delimiter, strict=True))
            except (UnicodeDecodeError, csv.Error):
                rows = []
            if len(rows) == len(records):
                return [self._object(row, text) for row, text in zip(rows, texts, strict=True)]
        return [self._parse_one(data) for data in records]

    def _parse_one(self, data: bytes) -> Object | RowError:
        if data.count(self.delimiter.encode()) > MANY_FIELDS and self._has_too_many(data):
            return RowError("R201", f"more fields than the {len(self.header)} of the header")
        if b"\0" in data:
            return RowError("R201", "the row contains NUL bytes")
        try:
            text = data.decode()
            return self._object(self._row(text, data), text)
        except UnicodeDecodeError as error:
            hint = likely_encoding(data)
            return RowError("R202", f"not UTF-8 at byte {error.start} of the row{hint}")
        except RowError as fault:
            return fault

    def _row(self, text: str, data: bytes) -> list[str]:
        """Return the fields of a record; raise R201 unless it is exactly one row."""
        try:
            with _long_fields(self.limits):
                rows = list(csv.reader([text], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            raise RowError("R201", _explain(str(error), data)) from None
        if len(rows) != 1:
            raise RowError("R201", f"parses to {len(rows)} rows, not to one")
        return rows[0]

    def _has_too_many(self, data: bytes) -> bool:
        """Return whether a record has more fields than the header, without creating them."""
        scanner, at = Scanner(self.delimiter), 0
        for _ in self.header:
            at = scanner.find_field_end(data, at)
            if at < 0:
                return False
        return True

    def _object(self, row: list[str], text: str) -> Object | RowError:
        if len(row) != len(self.header):
            problem = f"{len(row)} fields, but the header has {len(self.header)}"
            more = len(row) > len(self.header)
            hint = f"; a field that contains {self.delimiter!r} must be quoted" if more else ""
            return RowError("R201", problem + hint)
        if row == self.header:
            return RowError("R214", "repeats the header, as joined files do")
        if '"' in text:
            for field in row:
                if field[:1] in (" ", "\t") and self._is_spaced_quote(field, text):
                    problem = f"spaces before the quotes of {quote(field, 40)!r}"
                    return RowError("R215", f"{problem}; they would be part of the text")
        return dict(zip(self.header, row, strict=True))

    def _is_spaced_quote(self, field: str, text: str) -> bool:
        """Return whether spaces surround intended quotes; doubled quotes do not count."""
        inner = field.strip()
        if len(inner) < 2 or not inner.startswith('"') or not inner.endswith('"'):
            return False
        mark = self.delimiter
        return f"{mark}{field}{mark}" in f"{mark}{text.rstrip(chr(13))}{mark}"


@contextmanager
def _long_fields(limits: Limits) -> Iterator[None]:
    """Replace the csv module's process-wide field limit, 128 KiB, by `max_line_bytes`."""
    before = csv.field_size_limit(limits.max_line_bytes)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _explain(problem: str, data: bytes) -> str:
    if "new-line" in problem:
        return "a CR outside quotes, which may end a line or be text; quote the field"
    if "end of data" in problem:
        return "its quote is never closed; truncated_tail: the file ends inside this row"
    if "expected after" in problem:
        escaped = "; this file escapes quotes with a backslash" if b'\\"' in data else ""
        return f"text follows a closing quote; write a quote inside quotes twice{escaped}"
    return f"not a row of CSV: {problem}"
