"""Dialect of a CSV file: its delimiter and columns, detected from the first bytes."""

import csv
import re
from typing import NamedTuple

import orjson

from prefdata.errors import UsageError
from prefdata.read.files.csv_quotes import Record, split_records
from prefdata.read.limits import BOM

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
OTHERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MAX_COLUMNS = 10_000
UNSEEN = " \t\r\n\v\f\u00a0\u200b\u200c\u200d\u2060\ufeff"
"""Invisible characters: names that differ only by these look the same."""
SEP_LINE = re.compile(rb"sep=([,;|\t :^~])\r?\n", re.IGNORECASE)
"""First line that names the delimiter for Excel; several tools write it."""


class Dialect(NamedTuple):
    """Delimiter and number of lines to skip, for reading a file's records."""

    delimiter: str
    skip_lines: int = 0
    """Lines above the header that are not data."""
    note: str | None = None


def find_dialect(head: bytes, default: str, name: str) -> Dialect:
    """Return the default delimiter if the header has it, otherwise the only other one it has.

    Several other delimiters are an error (E162), because the columns would be a guess.
    """
    text = head.removeprefix(BOM)
    _refuse_json(text, name)
    stated = SEP_LINE.match(text)
    if stated:
        mark = stated.group(1).decode("latin-1")
        return Dialect(mark, 1, f"separated by {_word(mark)}, as its first line says")
    counts = {mark: _num_columns(text, mark, name) for mark in OTHERS}
    if counts.get(default, 0) > 1:
        return Dialect(default)
    found = [mark for mark, count in counts.items() if count > 1]
    if len(found) > 1:
        words = " or ".join(f"{counts[mark]} separated by {_word(mark)}" for mark in found)
        problem = f"its header has no {OTHERS[default]}, but {words} columns"
        raise UsageError("E162", name, problem, f"separate its columns by {OTHERS[default]}")
    if not found:
        return Dialect(default)
    mark = found[0]
    reason = f"its header has no {OTHERS[default]}"
    return Dialect(mark, 0, f"read as separated by {_word(mark)}: {reason}")


def refuse_separated(head: bytes, name: str) -> None:
    """Raise E162 for delimited text in a file whose name means JSON Lines."""
    if (found := separated_by(head, name)) is not None:
        mark, count = found
        problem = f"is not JSON: it looks like {count} columns separated by {OTHERS[mark]}"
        raise UsageError("E162", name, problem, f"give it a name that ends in {ending_of(mark)}")


def ending_of(mark: str) -> str:
    """Return the ending of a file's name whose columns a mark separates."""
    return ".tsv" if mark == "\t" else ".csv"


def separated_by(head: bytes, name: str) -> tuple[str, int] | None:
    """Return the mark that separates columns, and their number; None if there is none."""
    lines = [line for line in head.removeprefix(BOM).split(b"\n")[:50] if line.strip()]
    if len(lines) < 2 or any(line.lstrip()[:1] in (b"{", b"[") for line in lines):
        return None
    for mark in ("\t", ",", ";", "|"):
        counts = {_num_columns(line, mark, name) for line in lines[:2]}
        (count,) = counts if len(counts) == 1 else (0,)
        if count > 2 or (count == 2 and mark == "\t"):
            return mark, count
    return None


def read_header(record: Record, delimiter: str, name: str) -> tuple[list[str], str | None]:
    """Return distinct column names, and a note if some columns had no name."""
    place = f"{name}:{record.line}"
    data = record.data.removeprefix(BOM)
    if not record.whole or data.count(delimiter.encode()) >= MAX_COLUMNS:
        problem = f"the header has more than {MAX_COLUMNS:,} columns or is longer than a row may be"
        raise UsageError("E164", place, problem, "check that the file is CSV")
    try:
        text = data.decode()
        (names,) = csv.reader([text], delimiter=delimiter, strict=True)
    except UnicodeDecodeError as error:
        problem = f"the header is not UTF-8 at its byte {error.start}{likely_encoding(data)}"
        raise UsageError("E164", place, problem, "convert it, for example with iconv") from None
    except csv.Error as error:
        if "new-line" in str(error):
            remedy = "convert its line ends, for example with `tr '\\r' '\\n'`"
            raise UsageError("E103", name, "ends its lines with CR only", remedy) from None
        problem = f"the header is not a row of CSV: {error}"
        raise UsageError("E164", place, problem, "check its quotes") from None
    require_distinct([each for each in names if each.strip(UNSEEN)], place, unseen=UNSEEN)
    blank = [number for number, each in enumerate(names, start=1) if not each.strip(UNSEEN)]
    if len(blank) == len(names) or "\0" in text:
        what = "contains NUL bytes" if "\0" in text else "names no column"
        raise UsageError("E164", place, f"the header {what}", "write a header with names")
    for number in blank:
        names[number - 1] = _unused(f"column {number}", names)
    places = ", ".join(map(str, blank[:10]))
    return names, f"has columns without a name at {places}" if blank else None


def require_distinct(names: list[str], place: str, *, unseen: str = "") -> None:
    """Raise E163 if two columns look the same: the last would win, and labels might flip.

    `unseen` are characters to strip before names are compared.
    """
    seen: dict[str, str] = {}
    for name in names:
        shown = name.strip(unseen) if unseen else name
        if shown in seen:
            how = "" if seen[shown] == name else ", once with spaces around it"
            problem = f"has the column {shown[:80]!r} twice{how}"
            raise UsageError("E163", place, problem, "rename or remove one of them")
        seen[shown] = name


def likely_encoding(data: bytes) -> str:
    """Return a hint on the likely encoding of bytes that are not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        bad = data[error.start : error.start + 1].decode("cp1252", errors="replace")
        if bad.isprintable() and bad != "\ufffd":
            byte = data[error.start]
            return f"; 0x{byte:02x} is {bad!r} in Windows-1252 (iconv -f WINDOWS-1252 -t UTF-8)"
    return ""


def _refuse_json(text: bytes, name: str) -> None:
    line = text.lstrip().partition(b"\n")[0]
    if not line.startswith((b"{", b"[")):
        return
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    problem = "is JSON under a name that means CSV"
    raise UsageError("E162", name, problem, "give it a name that ends in .jsonl")


def _num_columns(text: bytes, mark: str, name: str) -> int:
    """Return the number of columns of the first record that is not blank; 0 if not a row."""
    try:
        for record in split_records(iter([text]), mark, len(text), name):
            if record.data.strip():
                line = record.data.decode("latin-1").rstrip("\r")
                return len(next(csv.reader([line], delimiter=mark, strict=True), []))
    except (UsageError, csv.Error):
        return 0
    return 0


def _word(mark: str) -> str:
    return OTHERS.get(mark, repr(mark))


def _unused(name: str, names: list[str]) -> str:
    while name in names:
        name += "'"
    return name
