"""CSV and TSV: a quote in a field is text, no row is swallowed, and no dialect is guessed."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from prefdata.errors import UsageError
from prefdata.read import Limits
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]
HEADER = b"prompt,chosen,rejected\n"
PAIRS = b"B,good b,bad b\nC,good c,bad c\n"

# The first row, and the result: its prompt as read, or its code.
QUOTES: dict[str, tuple[bytes, str]] = {
    "an inch sign": (b'A 5" pipe?,good,bad\n', 'A 5" pipe?'),
    "two inch signs": (b'5" by 6" pipe?,good,bad\n', '5" by 6" pipe?'),
    "an inch sign in the last field": (b'A,good,12"\n', "A"),
    "an inch sign in the first, quotes after it": (b'A 5" pipe?,"go, od","b\nad"\n', 'A 5" pipe?'),
    "a quoted field before it": (b'"A, or",5" it is,bad\n', "A, or"),
    "three in one field": (b'a"b"c"d,good,bad\n', 'a"b"c"d'),
    "a quote at a field's end": (b'say "hi",good,bad"\n', 'say "hi"'),
    "doubled in an unquoted field": (b'A ""x"" b,good,bad\n', 'A ""x"" b'),
    "a lone quote that is all of a quoted field": (b'"""",good,bad\n', '"'),
    "before CRLF": (b'A,good,5"\r\n', "A"),
    "a quoted field with lines and an odd sign": (b'"A\n5"" pipe",good,bad\n', 'A\n5" pipe'),
    "text behind a closing quote": (b'"A" pipe,good,bad\n', "R201"),
    "a quoted word begins a field": (b'"Yes" he said,good,bad\n', "R201"),
    "escaped by a backslash": (b'"A \\"b\\" c",good,bad\n', "R201"),
    "a CR outside of quotes": (b"A\rB,good,bad\n", "R201"),
    "spaces before quotes": (b'A, "go od", "bad"\n', "R215"),
    "a fourth field": (b"Tea, or coffee?,good,bad\n", "R201"),
    "two fields": (b"A,good\n", "R201"),
    "the header again": (HEADER, "R214"),
    "the header again with a mark": (b"\xef\xbb\xbf" + HEADER, "R214"),
    "Windows-1252": (b"Caf\xe9?,good,bad\n", "R202"),
    "a NUL byte": (b"A\0,good,bad\n", "R201"),
}


@pytest.mark.parametrize(("first", "outcome"), QUOTES.values(), ids=QUOTES.keys())
@pytest.mark.parametrize("number", [1, 4])
def test_a_row_swallows_none_of_the_next(
    read: Read, first: bytes, outcome: str, number: int
) -> None:
    content = HEADER + first * number + PAIRS

    rows = read(content, name="rows.csv")

    assert rows.counts.lines == number + 2
    prompts = [prompt[0]["content"] for prompt in rows.records["prompt"].to_pylist()]
    assert prompts[-2:] == ["B", "C"]
    if outcome[0] == "R" and outcome[1:].isdigit():
        assert rows.rejected["code"].to_pylist() == [outcome] * number
        for refused in rows.rejected.to_pylist():
            assert content[refused["offset"] :].startswith(refused["raw"])
            assert content[: refused["offset"]].count(b"\n") + 1 == refused["line"]
    else:
        assert prompts[:-2] == [outcome] * number
        assert rows.counts.rejected == 0


# A broken quote that spans a line end: the start of the next row would be a guess.
SPOILED: dict[str, bytes] = {
    "opened and never closed": b'"A,good,bad\n',
    "opened in the last field": b'A,good,"bad\n',
    "closed in another row, before text": b'"A,good,bad\nA,"good",bad\n',
    "escaped by a backslash at the end": b'"A \\"",good,bad\n',
    "opened after a good row of lines": b'"A\nB",good,bad\n"C,good,bad\n',
}


@pytest.mark.parametrize("first", SPOILED.values(), ids=SPOILED.keys())
def test_a_quote_that_spoils_other_rows_is_one_error(read: Read, first: bytes) -> None:
    with pytest.raises(UsageError, match=r"rows\.csv:\d+: .*lines \d+ to [\d,]+.*\[E161\]$"):
        read(HEADER + PAIRS + first + PAIRS * 1000, name="rows.csv")


def test_a_file_cut_inside_its_last_line_loses_only_that_row(read: Read) -> None:
    rows = read(HEADER + PAIRS + b'D,"good', name="rows.csv")

    (refused,) = rows.rejected.to_pylist()
    assert (refused["code"], refused["line"]) == ("R201", 4)
    assert "truncated_tail" in refused["message"]
    assert rows.counts.pairs == 2


def test_a_field_may_be_as_long_as_a_line_may(read: Read) -> None:
    long = b"x" * 300_000
    before = csv.field_size_limit()

    rows = read(HEADER + long + b",good,bad\n", name="rows.csv")

    assert rows.records["prompt"][0][0]["content"].as_py() == long.decode()
    assert csv.field_size_limit() == before


def test_a_record_longer_than_the_limit_is_skipped_to_its_end(read: Read) -> None:
    record = b'"' + b'line, ""of"" text\n' * 1000 + b'",good,bad\n'
    content = HEADER + PAIRS + record + PAIRS

    rows = read(content, name="rows.csv", limits=Limits(max_line_bytes=10_000))

    assert rows.rejected["code"].to_pylist() == ["R212"]
    assert rows.records["line"].to_pylist() == [2, 3, 1005, 1006]
    assert content[rows.records["offset"][2].as_py() :] == PAIRS


DIALECTS = {
    "semicolons": (b"prompt;chosen;rejected\nWhat, now?;Yes;No\n", "rows.csv", "semicolons"),
    "semicolons with a mark and CRLF": (
        b"\xef\xbb\xbfprompt;chosen;rejected\r\nWhat, now?;Yes;No\r\n",
        "rows.csv",
        "semicolons",
    ),
    "tabs under .csv": (b"prompt\tchosen\trejected\nWhat, now?\tYes\tNo\n", "rows.csv", "tabs"),
    "commas under .tsv": (b'prompt,chosen,rejected\n"What, now?",Yes,No\n', "rows.tsv", "commas"),
    "bars": (b"prompt|chosen|rejected\nWhat, now?|Yes|No\n", "rows.csv", "vertical bars"),
    "a line that states it": (
        b"sep=;\r\nprompt;chosen;rejected\r\nWhat, now?;Yes;No\r\n",
        "rows.csv",
        "first line says",
    ),
    "quoted names": (b'"prompt";"chosen";"rejected"\n"What, now?";"Yes";"No"\n', "r.csv", "semi"),
    "a comma inside a quoted name": (
        b'"prompt";"chosen";"rejected";"a, b"\nWhat, now?;Yes;No;1\n',
        "rows.csv",
        "semicolons",
    ),
    "as named": (b'prompt,chosen,rejected\n"What, now?",Yes,No\n', "rows.csv", None),
    "as named, upper case": (b"prompt\tchosen\trejected\nWhat, now?\tYes\tNo\n", "R.TSV", None),
    "blank lines above": (b'\n\r\nprompt,chosen,rejected\n"What, now?",Yes,No\n', "r.csv", None),
    "a pandas index": (b',prompt,chosen,rejected\n0,"What, now?",Yes,No\n', "r.csv", "name at 1"),
    "Excel's empty columns": (
        b'prompt,chosen,rejected,,\n"What, now?",Yes,No,,\n',
        "rows.csv",
        "name at 4, 5",
    ),
}


@pytest.mark.parametrize(("content", "name", "note"), DIALECTS.values(), ids=DIALECTS.keys())
def test_a_dialect_is_read_and_reported(
    read: Read, content: bytes, name: str, note: str | None
) -> None:
    rows = read(content, name=name)

    (record,) = rows.records.to_pylist()
    sides = [record[side][0]["content"] for side in ("prompt", "chosen", "rejected")]
    assert sides == ["What, now?", "Yes", "No"]
    assert [note in said for said in rows.notes] == ([True] if note else [])
    assert content[record["offset"] :].lstrip(b'"0,').startswith(b"What")


BAD_TABLES = {
    "twice": (b"prompt,chosen,rejected,chosen\na,b,c,d\n", "E163"),
    "twice, quoted": (b'prompt,chosen,rejected,"chosen"\na,b,c,d\n', "E163"),
    "twice, a space before": (b"prompt,chosen,rejected, chosen\na,b,c,d\n", "E163"),
    "twice, a space behind": (b"prompt,chosen ,rejected,chosen\na,b,c,d\n", "E163"),
    "twice, a mark before": (b"prompt,chosen,rejected,\xef\xbb\xbfprompt\na,b,c,d\n", "E163"),
    "twice, a no-break space": ("prompt,chosen,rejected,chosen\u00a0\na,b,c,d\n".encode(), "E163"),
    "twice, zero width": ("prompt,chosen,\u200bchosen,rejected\na,b,c,d\n".encode(), "E163"),
    "twice, three times": (b"prompt,prompt,prompt,chosen,rejected\na,b,c,d,e\n", "E163"),
    "twice, separated by semicolons": (b"prompt;chosen;rejected;chosen\na;b;c;d\n", "E163"),
    "twice, unread": (b"prompt,chosen,rejected,x,x\na,b,c,d,e\n", "E163"),
    "no names": (b",,\na,b,c\n", "E164"),
    "Windows-1252 in the header": (b"prompt,chosen,rejected,caf\xe9\na,b,c,d\n", "E164"),
    "a NUL in the header": (b"prompt,chosen,rejected,\0\na,b,c,d\n", "E164"),
    "a broken quote in the header": (b'"prompt"x,chosen,rejected\na,b,c\n', "E164"),
    "very many columns": (b"a," * 20_000 + b"\n1\n", "E164"),
    "two delimiters": (b"prompt;chosen\trejected\na;b\tc\n", "E162"),
    "JSON Lines": (b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "E162"),
    "a JSON array": (b'[{"prompt": "a", "chosen": "b", "rejected": "c"}]\n', "E162"),
    "CR only": (b"prompt,chosen,rejected\ra,b,c\rd,e,f\r", "E103"),
    "CR only, quoted": (b'"prompt","chosen","rejected"\r"a","b","c"\r', "E103"),
    "CR only after the header": (b"prompt,chosen,rejected\ra,b,c\nd,e,f\n", "E103"),
    "UTF-16 with a mark": ("prompt\tchosen\trejected\na\tb\tc\n".encode("utf-16"), "E102"),
    "UTF-16 without": ("prompt,chosen,rejected\na,b,c\n".encode("utf-16-le"), "E102"),
    "UTF-16 big-endian without": ("prompt,chosen,rejected\na,b,c\n".encode("utf-16-be"), "E102"),
    "UTF-32 without": ("prompt,chosen,rejected\na,b,c\n".encode("utf-32-le"), "E102"),
}


@pytest.mark.parametrize(("content", "code"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_bad_table_of_text_is_one_error(read: Read, content: bytes, code: str) -> None:
    with pytest.raises(UsageError, match=rf"rows\.csv.*\[{code}\]$"):
        read(content, name="rows.csv")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["rows.txt", "rows.jsonl", "rows"])
def test_a_table_under_a_name_for_json_is_named(read: Read, mark: str, name: str) -> None:
    content = mark.join(["prompt", "chosen", "rejected"]) + "\n" + mark.join("abc") + "\n"

    with pytest.raises(UsageError, match=r"3 columns separated by .*\[E162\]$"):
        read(content.encode(), name=name)


@pytest.mark.parametrize("content", [b"", b"\n\n", HEADER, HEADER[:-1], b"\xef\xbb\xbf"])
def test_a_header_without_rows_is_no_rows(read: Read, content: bytes) -> None:
    rows = read(content, name="rows.csv")

    assert rows.counts.lines == 0
    assert "contains no rows [E101]" in rows.notes


def test_blank_lines_are_counted_and_empty_fields_are_rows(read: Read) -> None:
    content = b"prompt\tchosen\trejected\n\na\tb\tc\n \r\n\t\t\nd\te\tf\n"

    rows = read(content, name="rows.tsv")

    assert (rows.counts.lines, rows.counts.blank) == (5, 2)
    assert rows.records["line"].to_pylist()[:1] + rows.records["line"].to_pylist()[-1:] == [3, 6]


def test_the_hint_names_the_encoding(read: Read) -> None:
    content = HEADER + b"Caf\xe9?,Yes,No\r\nTea?,Yes,No\r\n"

    (refused,) = read(content, name="rows.csv").rejected.to_pylist()

    assert "0xe9 is 'é' in Windows-1252" in refused["message"]


def test_excel_s_cases(read: Read) -> None:
    """The same three pairs as saved by Excel, LibreOffice and pandas."""
    cells = [["Line one\r\nline two?", 'Yes, "both".', "No"], ['5" pipe; or 6"?', "Yes", "No way"]]
    prompts = []
    for mark, ends in ((",", "\r\n"), (";", "\r\n"), ("\t", "\n"), ("|", "\n")):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=mark, lineterminator=ends)
        writer.writerows([["prompt", "chosen", "rejected"], *cells])
        rows = read(text.getvalue().encode("utf-8-sig"), name="rows.csv")
        prompts.append([prompt[0]["content"] for prompt in rows.records["prompt"].to_pylist()])
    assert prompts == [[cell[0] for cell in cells]] * 4


def test_a_report_says_how_a_file_was_read(tmp_path: Path) -> None:
    from prefdata.validation import validate

    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt;chosen;rejected\nWhat, now?;Yes;No\n")

    assert any("semicolons" in note for note in validate([str(path)]).notes)
