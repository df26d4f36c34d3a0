"""Parquet, Arrow and CSV files give the same pairs as JSON Lines."""

import random
from collections.abc import Callable
from io import BytesIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdata.errors import UsageError
from prefdata.read import Limits
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]

ROWS = [{"prompt": f'Café {n},\n"is"', "chosen": f" {n}.", "rejected": " big."} for n in range(50)]
CHATS = [
    {
        "prompt": [{"role": "user", "content": f"q{n}"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }
    for n in range(50)
]


def parquet(rows: list[dict[str, object]]) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def arrow(rows: list[dict[str, object]]) -> bytes:
    sink, table = BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return sink.getvalue()


def csv(rows: list[dict[str, str]], delimiter: str = ",") -> bytes:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [delimiter.join(rows[0]), *(delimiter.join(map(cell, row.values())) for row in rows)]
    return "\r\n".join(lines).encode() + b"\r\n"


@pytest.mark.parametrize("rows", [ROWS, CHATS], ids=["text", "messages"])
@pytest.mark.parametrize("write", [parquet, arrow])
def test_table_files_give_the_pairs_of_json_lines(read: Read, write: Callable, rows: list) -> None:
    as_lines = read(b"\n".join(map(orjson.dumps, rows)))
    as_table = read(write(rows), name="rows.bin")

    assert as_table.records["pair_id"] == as_lines.records["pair_id"]
    assert as_table.records["line"].to_pylist() == list(range(1, 51))
    assert set(as_table.records["offset"].to_pylist()) == {-1}


@pytest.mark.parametrize(("name", "delimiter"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_csv_gives_the_pairs_of_json_lines(read: Read, name: str, delimiter: str) -> None:
    as_lines = read(b"\n".join(map(orjson.dumps, ROWS)))
    as_csv = read(csv(ROWS, delimiter), name=name)

    assert as_csv.records["pair_id"] == as_lines.records["pair_id"]
    assert as_csv.counts.lines == 50
    assert as_csv.records["line"].to_pylist()[:3] == [2, 4, 6]


def test_a_csv_row_with_another_number_of_fields_is_refused(read: Read) -> None:
    content = b"prompt,chosen,rejected\na,b,c\na,b\n\xff,b,c\nd,e,f\n"

    rows = read(content, name="rows.csv")

    assert rows.rejected["code"].to_pylist() == ["R201", "R202"]
    assert rows.rejected["line"].to_pylist() == [3, 4]
    assert content[rows.rejected["offset"][0].as_py() :].startswith(b"a,b\n")
    assert rows.counts.pairs == 2


def test_a_csv_quote_that_never_closes_is_one_error_and_takes_no_memory(read: Read) -> None:
    content = b'prompt,chosen,rejected\na,b,c\n"open' + b"x\n" * 100_000

    with pytest.raises(UsageError, match=r"lines 3 to 100,003 .*\[E161\]$"):
        read(content, name="rows.csv", limits=Limits(max_line_bytes=10_000))


def test_a_parquet_row_that_is_refused_is_kept_as_json(read: Read) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": None}]

    (refused,) = read(parquet([*rows[:1] * 3, rows[1]])).rejected.to_pylist()

    assert (refused["code"], refused["line"], refused["offset"]) == ("R211", 4, -1)
    assert orjson.loads(refused["raw"]) == {"prompt": "a", "chosen": None, "rejected": None}


@pytest.mark.parametrize("write", [parquet, arrow])
def test_table_files_cut_anywhere_are_refused(read: Read, write: Callable) -> None:
    whole, draw = write(ROWS), random.Random(0)

    for _ in range(100):
        cut = whole[: draw.randrange(8, len(whole))]
        with pytest.raises(UsageError, match=r"\[E114\]$"):
            read(cut)


def test_table_files_with_a_flipped_bit_never_crash(read: Read) -> None:
    whole, draw = bytearray(parquet(ROWS)), random.Random(0)
    codes = set()

    for _ in range(100):
        at = draw.randrange(8, len(whole))
        flip = 1 << draw.randrange(8)
        whole[at] ^= flip
        try:
            rows = read(bytes(whole))
        except UsageError as error:
            codes.add(error.code)
        else:
            codes.add("read" if rows.counts.lines == 50 else "lost")
        whole[at] ^= flip
    assert codes <= {"read", "E114", "PD102"}
