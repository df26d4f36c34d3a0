"""A bad row is refused with its code, location and bytes, and its neighbours are kept."""

from collections.abc import Callable

import orjson
import pytest

from prefdata.read import Limits
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import parse_line
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]

GOOD = [
    orjson.dumps({"prompt": f"The number {n} is", "chosen": f" {n}.", "rejected": " big."})
    for n in range(5)
]


def row(text: bytes, chosen: bytes = b'" a"') -> bytes:
    """Return a good row except for the bytes of its prompt or chosen."""
    return b'{"prompt": "' + text + b'", "chosen": ' + chosen + b', "rejected": " b"}'


BAD_ROWS = {
    "12 cut line": (b'{"prompt": "The sk', "R201"),
    "14 ff fe in text": (row(b"a\xff\xfeb"), "R202"),
    "15 overlong": (row(b"a\xc0\xafb"), "R202"),
    "16 raw surrogate": (row(b"a\xed\xa0\x80b"), "R202"),
    "17 lone high escape": (row(b"a\\ud800b"), "R203"),
    "18 lone low escape": (row(b"a\\udc00b"), "R203"),
    "18 reversed pair": (row(b"\\ude00\\ud83d"), "R203"),
    "18 high escape at the end": (row(b"a\\ud83d"), "R203"),
    "20 NUL escape": (row(b"a\\u0000b"), "R204"),
    "21 raw NUL": (row(b"a\0b"), "R201"),
    "22 NUL block": (b"\0" * 4096, "R201"),
    "24 raw TAB": (row(b"a\tb"), "R201"),
    "24 raw BEL": (row(b"a\ab"), "R201"),
    "25 NaN": (row(b"a")[:-1] + b', "id": NaN}', "R205"),
    "26 -Infinity": (row(b"a")[:-1] + b', "id": -Infinity}', "R205"),
    "27 1e999": (row(b"a")[:-1] + b', "id": 1e999}', "R205"),
    "30 10,000 digits": (row(b"a")[:-1] + b', "id": ' + b"9" * 10_000 + b"}", "R206"),
    "31 duplicate key": (row(b"a")[:-1] + b', "chosen": " c"}', "R207"),
    "31 duplicate key, spaced": (row(b"a")[:-1] + b', "chosen" : " c"}', "R207"),
    "31 duplicate key, escaped": (row(b"a")[:-1] + b', "ch\\u006fsen": " c"}', "R207"),
    "31 duplicate key, inner": (row(b"a")[:-1] + b', "id": {"x": 1, "x": 2}}', "R207"),
    "31 duplicate key after colons": (row(b'\\":', b'":a"')[:-1] + b', "prompt": "x"}', "R207"),
    "32 depth 65": (row(b"a")[:-1] + b', "id": ' + b"[" * 64 + b"]" * 64 + b"}", "R208"),
    "32 depth 1,000": (row(b"a")[:-1] + b', "id": ' + b"[" * 1000 + b"]" * 1000 + b"}", "R208"),
    "33 depth 100,000": (b'{"id":' * 100_000 + b"1" + b"}" * 100_000, "R208"),
    "34 a list": (b"[1, 2]", "R209"),
    "35 a string": (b'"x"', "R209"),
    "35 a number": (b"3", "R209"),
    "36 null": (b"null", "R209"),
    "39 two objects": (GOOD[0] + GOOD[1], "R201"),
    "40 trailing comma": (row(b"a")[:-1] + b",}", "R201"),
    "41 comment": (b"// rows below", "R201"),
    "42 Python repr": (b"{'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}", "R201"),
    "43 a list for text": (row(b"a", b'[{"role": "assistant", "content": "a"}]'), "R210"),
    "44 a number for text": (row(b"a", b"5"), "R210"),
    "45 field missing": (b'{"prompt": "a", "chosen": "b"}', "R211"),
    "46 field null": (row(b"a", b"null"), "R211"),
    "47 empty object": (b"{}", "R211"),
}


@pytest.mark.parametrize(("bad", "code"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_only_a_bad_row_is_refused_with_its_place_and_bytes(
    read: Read, bad: bytes, code: str
) -> None:
    lines = [*GOOD[:3], bad, *GOOD[3:]]

    rows = read(b"\n".join(lines) + b"\n")

    (refused,) = rows.rejected.to_pylist()
    assert refused["code"] == code
    assert (refused["line"], refused["ordinal"]) == (4, -1)
    assert refused["offset"] == sum(len(line) + 1 for line in GOOD[:3])
    assert refused["raw"] == bad
    assert rows.records["line"].to_pylist() == [1, 2, 3, 5, 6]
    assert (rows.counts.lines, rows.counts.rejected) == (6, 1)


FINE_ROWS = {
    "19 a surrogate pair": (row(b"\\ud83d\\ude00"), "\N{GRINNING FACE}"),
    "50 U+2028 and U+0085": (row("a\u2028b\u0085c".encode()), "a\u2028b\u0085c"),
    "51 a date": (row(b"2024-01-01"), "2024-01-01"),
    "52 text like a value": (row(b"1e5"), "1e5"),
    "a key's look-alikes": (row(b'\\":\\" : \\"', b'": a"'), '":" : "'),
    "brackets in text": (row(b"[" * 100), "[" * 100),
    "an escaped backslash before u0000": (row(b"\\\\u0000"), "\\u0000"),
}


@pytest.mark.parametrize(("fine", "prompt"), FINE_ROWS.values(), ids=FINE_ROWS.keys())
def test_text_that_looks_odd_is_kept_letter_by_letter(read: Read, fine: bytes, prompt: str) -> None:
    rows = read(fine + b"\n")

    assert rows.rejected.num_rows == 0
    assert rows.records["prompt"][0].as_py()[0]["content"] == prompt


def test_utf8_faults_name_the_byte(read: Read) -> None:
    rows = read(b"\n".join([*GOOD, row("é".encode() + b"\xff")]))

    assert rows.rejected["message"][0].as_py() == "not UTF-8: byte 0xff at byte 14 of the row"


def test_a_cut_last_line_is_called_so(read: Read) -> None:
    rows = read(b"\n".join(GOOD)[:-9])

    (refused,) = rows.rejected.to_pylist()
    assert (refused["code"], refused["line"]) == ("R201", 5)
    assert "truncated_tail" in refused["message"]
    assert rows.counts.pairs == 4


def test_a_last_line_without_a_newline_is_kept(read: Read) -> None:
    assert read(b"\n".join(GOOD)).counts.pairs == 5


def test_nul_can_be_allowed(read: Read) -> None:
    rows = read(row(b"a\\u0000b"), limits=Limits(allow_nul=True))

    assert rows.records["prompt"][0].as_py()[0]["content"] == "a\0b"


def test_long_ids_keep_every_digit(read: Read) -> None:
    ids = ["9007199254740993", "18446744073709551615", "-123456789012345678901234567890"]

    rows = read(b"\n".join(row(b"a")[:-1] + b', "id": %s}' % i.encode() for i in ids))

    kept = [str(orjson.loads(meta)["id"]) for meta in rows.records["meta"].to_pylist()]
    assert kept == ids


def test_a_score_beyond_2_to_the_53_is_refused(read: Read) -> None:
    completions = b'[{"text": "a", "score": %s}, {"text": "b", "score": 1}]'
    lines = [
        b'{"prompt": "q", "completions": ' + completions % score + b"}"
        for score in (b"2", b"9007199254740993", b"123456789012345678901234567890", b"1e300")
    ]

    rows = read(b"\n".join(lines))

    assert rows.rejected["code"].to_pylist() == ["R206"] * 3
    assert rows.rejected["line"].to_pylist() == [2, 3, 4]


def test_a_line_beyond_the_limit_is_skipped_unread(read: Read) -> None:
    limits = Limits(max_line_bytes=1 << 20)
    lines = [GOOD[0], row(b"x" * (3 << 20)), GOOD[1], row(b"y" * (1 << 20)), GOOD[2]]

    rows = read(b"\n".join(lines), limits=limits)

    assert rows.rejected["code"].to_pylist() == ["R212", "R212"]
    assert rows.rejected["line"].to_pylist() == [2, 4]
    assert rows.records["line"].to_pylist() == [1, 3, 5]
    offsets = [sum(len(line) + 1 for line in lines[:n]) for n in (0, 2, 4)]
    assert rows.records["offset"].to_pylist() == offsets


def test_a_new_key_late_in_the_file_is_counted_and_kept(read: Read) -> None:
    late = row(b"a")[:-1] + b', "mood": "good"}'

    rows = read(b"\n".join([*GOOD * 600, late]))

    assert rows.counts.extra_keys == {"mood": 1}
    assert rows.records["meta"][-1].as_py() == '{"mood":"good"}'


def test_a_type_change_late_in_the_file_is_refused(read: Read) -> None:
    rows = read(b"\n".join([*GOOD * 600, row(b"a", b"[]")]))

    assert (rows.counts.pairs, rows.rejected["code"].to_pylist()) == (3000, ["R210"])


ROWS_BY_DEPTH: dict[str, tuple[object, int]] = {
    "texts": ({"prompt": "a", "chosen": None}, 1),
    "an empty list": ({"prompt": []}, 2),
    "a list of texts": ({"prompt": ["[[[[", "{{{{"]}, 2),
    "messages": ({"prompt": [{"role": "user", "content": "a"}] * 100}, 3),
    "messages with nulls": ({"prompt": [{"role": "user", "content": "a", "name": None}]}, 3),
    "empty messages": ({"prompt": [{}, {}]}, 3),
    "parts": ({"prompt": [{"role": "user", "content": [{"type": "text"}]}]}, 5),
    "a number next to messages": ({"prompt": [{"role": "user"}], "score": 1.5}, 3),
}


@pytest.mark.parametrize("limit", range(1, 7))
@pytest.mark.parametrize(("row", "depth"), ROWS_BY_DEPTH.values(), ids=ROWS_BY_DEPTH.keys())
def test_a_row_is_refused_exactly_where_it_is_deeper_than_the_limit(
    row: object, depth: int, limit: int
) -> None:
    line, limits = orjson.dumps(row), Limits(max_depth=limit)
    if depth <= limit:
        assert parse_line(line, limits) == row
        return
    with pytest.raises(RowError, match="deeper") as caught:
        parse_line(line, limits)
    assert caught.value.code == "R208"
