"""CSV against Python's csv.reader: equal records, or a refusal with a code."""

import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefdata.errors import UsageError
from prefdata.read import InputFile, Limits, OpenFile
from prefdata.read.faults import RowError
from prefdata.read.files.chunks import CsvBlock
from prefdata.read.files.csv_quotes import split_records
from prefdata.read.files.formats import read_rows
from prefdata.read.files.jsonl import Tally
from tests.effort import times

NAMES = ["prompt", "chosen", "rejected"]
PIECES = ['"', '""', ",", ";", "\t", "|", "\n", "\r\n", " ", "a", "é", "😀", "b c", '5"', "\u2028"]
RARE = ["\r", "\\", "\\'", "'", "\ufeff", "\0", "", "\x1a"]
MARKS = [",", ";", "\t", "|"]


def draw_text(draw: random.Random) -> str:
    pieces = PIECES if draw.random() < 0.9 else [*PIECES, *RARE]
    return "".join(draw.choices(pieces, k=draw.randrange(6)))


def well_formed(draw: random.Random, mark: str, ends: str) -> bytes:
    """Return a file from Python's writer, all of which must be read."""
    text = io.StringIO()
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    writer = csv.writer(text, delimiter=mark, lineterminator=ends, quoting=quoting)
    rows = [[draw_text(draw).replace("\0", "") for _ in NAMES] for _ in range(draw.randrange(9))]
    writer.writerows([NAMES, *rows])
    return text.getvalue().encode()


def sloppy(draw: random.Random, mark: str, ends: str) -> bytes:
    """Return a file of fields that are not quoted, or quoted wrongly."""
    lines = [mark.join(NAMES)]
    for _ in range(draw.randrange(9)):
        fields = [draw_text(draw) for _ in range(3 if draw.random() < 0.9 else draw.randrange(6))]
        if draw.random() < 0.3:
            fields[:1] = [f'"{field}"' for field in fields[:1]]
        lines.append(mark.join(fields))
    return ends.join(lines).encode() + draw.choice([b"", ends.encode()])


def mutated(draw: random.Random, data: bytes) -> bytes:
    """Return the file with a few bytes changed, removed, inserted or repeated."""
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        at, size = draw.randrange(len(changed) + 1), draw.randrange(1, 9)
        how = draw.randrange(5)
        if how == 0:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif how == 1:
            del changed[at : at + size]
        elif how == 2:
            changed[at:at] = draw.choice([b'"', b",", b"\n", b"\r", b'""', b'"\n', b'",', b"\0"])
        elif how == 3:
            changed[at:at] = changed[at : at + size]
        else:
            del changed[at:]
    return bytes(changed)


Rows = dict[int, list[str] | str]


def read_ours(path: Path) -> tuple[Rows, Tally]:
    """Return the fields or code of every record that is not blank, by its first line."""
    tally, rows = Tally(), {}
    for block in OpenFile(InputFile(path, path.name, 0), Limits()):
        assert isinstance(block, CsvBlock)
        for line, _, _, value in read_rows(block, Limits(), tally):
            rows[line] = value.code if isinstance(value, RowError) else list(value.values())
    return rows, tally


def read_theirs(data: bytes, mark: str) -> dict[int, list[str]]:
    """Return csv.reader's rows of the lines below the header, split at 0x0A as ours are."""
    text = data.decode("utf-8-sig", errors="surrogateescape")
    rows, line = {}, 1
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=mark)
    for row in reader:
        rows[line] = row
        line = reader.line_num + 1
    for line in list(rows):
        header = rows.pop(line)
        if "".join(header).strip() or (header[1:] and mark == "\t"):
            break
    return rows


def compare(path: Path, data: bytes, mark: str) -> str:
    """Compare one file with csv.reader, and return the outcome."""
    path.write_bytes(data)
    try:
        ours, tally = read_ours(path)
    except UsageError as error:
        return error.code
    codes = {value for value in ours.values() if isinstance(value, str)}
    try:
        theirs = read_theirs(data, mark)
    except csv.Error:  # a CR outside quotes
        assert codes & {"R201", "R202"}
        return "CR"
    assert (tally.lines, tally.blank) == (len(theirs), len(theirs) - len(ours))
    for line, wanted in theirs.items():
        found = ours.get(line, [])
        if isinstance(found, list):
            marked = bool(wanted) and wanted[0].startswith("\ufeff")  # a byte order mark, stripped
            assert found[marked:] == (wanted[marked:] if "".join(wanted).strip() else found), line
    return "+".join(sorted(codes)) or "equal"


def drawn(seed: int) -> Iterator[tuple[str, bytes]]:
    draw = random.Random(seed)
    mark, ends = draw.choice(MARKS), draw.choice(["\n", "\r\n"])
    yield mark, well_formed(draw, mark, ends)
    yield mark, sloppy(draw, mark, ends)


@pytest.mark.stress
def test_files_of_every_dialect_are_read_as_python_reads_them(tmp_path: Path) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(times(150, 2500)):
        for mark, data in drawn(seed):
            outcome = compare(tmp_path / "rows.csv", data, mark)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["equal"] > times(100, 2000)


@pytest.mark.stress
def test_mutated_files_are_read_as_python_reads_them(tmp_path: Path) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(times(200, 1789)):
        draw = random.Random(seed)
        data = mutated(draw, well_formed(draw, ",", draw.choice(["\n", "\r\n"])))
        outcome = compare(tmp_path / "rows.csv", data, ",")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["equal"] > times(20, 200)


@pytest.mark.stress
def test_what_python_wrote_is_read_whole(tmp_path: Path) -> None:
    """No row that Python's writer quoted is refused, for any text."""
    for seed in range(times(100, 2000)):
        draw = random.Random(seed)
        text = io.StringIO()
        mark = draw.choice(MARKS)
        writer = csv.writer(text, delimiter=mark, quoting=csv.QUOTE_ALL)
        rows = [[draw_text(draw).replace("\0", "") for _ in NAMES] for _ in range(9)]
        writer.writerows([NAMES, *rows])

        outcome = compare(tmp_path / "rows.csv", text.getvalue().encode(), mark)

        assert outcome == "equal", seed


def test_records_do_not_depend_on_where_the_chunks_end() -> None:
    for seed in range(times(40, 400)):
        draw = random.Random(seed)
        mark, ends = draw.choice(MARKS), draw.choice(["\n", "\r\n"])
        for data in (well_formed(draw, mark, ends), sloppy(draw, mark, ends)):
            outcomes = set()
            for size in (1, 2, 3, 7, len(data) + 1):
                chunks = (data[at : at + size] for at in range(0, len(data), size))
                try:
                    outcomes.add(tuple(split_records(chunks, mark, 40, "rows.csv")))
                except UsageError as error:
                    outcomes.add(error.code)
            assert len(outcomes) == 1, data
