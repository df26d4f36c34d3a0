"""Parquet and Arrow files pass the checks of JSON rows; unsupported columns are one error."""

import datetime
import json
import random
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdata.errors import UsageError
from prefdata.read import InputFile, Limits, OpenFile
from prefdata.read.files.formats import read_rows
from prefdata.read.files.jsonl import Tally
from tests.effort import times
from tests.prefdata.read.rows import FileRows

Read = Callable[..., FileRows]
Write = Callable[[pa.Table], bytes]
GOOD = {"prompt": pa.array(["q", "r", "s"])} | {
    side: pa.array([f"{side} 1", f"{side} 2", f"{side} 3"]) for side in ("chosen", "rejected")
}


def parquet(table: pa.Table) -> bytes:
    sink = BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def feather(table: pa.Table) -> bytes:
    sink = BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


writers = pytest.mark.parametrize("write", [parquet, arrow, feather])


def struct(values: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([values], names=["x"])


def lists(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(len(values) + 1), pa.int32()), values)


NAN, INF = float("nan"), float("inf")
BAD_TEXT = pa.array([b"q", b"caf\xe9", b"s"]).view(pa.string())
# Values of an unread column `meta`, and the code of its second row.
GUARDED = {
    "NaN": (pa.array([1.0, NAN, None]), "R205"),
    "an infinity": (pa.array([1.0, INF, 0.0]), "R205"),
    "minus infinity in float32": (pa.array([1.0, -INF, 0.0], pa.float32()), "R205"),
    "NaN in a list": (lists(pa.array([1.0, NAN, 2.0])), "R205"),
    "NaN in a struct in a list": (lists(struct(pa.array([1.0, NAN, 2.0]))), "R205"),
    "NUL": (pa.array(["a", "a\0b", None]), "R204"),
    "NUL only": (pa.array(["a", "\0", ""]), "R204"),
    "NUL in long text": (pa.array(["a", "a\0b", None], pa.large_string()), "R204"),
    "NUL in a dictionary": (pa.array(["a", "a\0b", "a"]).dictionary_encode(), "R204"),
    "NUL in a struct in a list": (lists(struct(pa.array(["a", "\0b", "c"]))), "R204"),
    "text that is not UTF-8": (BAD_TEXT, "R202"),
    "text in a list that is not UTF-8": (lists(BAD_TEXT), "R202"),
    "text in a struct that is not UTF-8": (struct(BAD_TEXT), "R202"),
    "a key twice in a map": (
        pa.array([[("a", 1)], [("a", 1), ("a", 2)], None], pa.map_(pa.string(), pa.int64())),
        "R207",
    ),
}


@writers
@pytest.mark.parametrize(("values", "code"), GUARDED.values(), ids=GUARDED.keys())
def test_a_table_has_the_guards_of_json(
    read: Read, write: Write, values: pa.Array, code: str
) -> None:
    rows = read(write(pa.table({**GOOD, "meta": values})), name="rows.bin")

    (refused,) = rows.rejected.to_pylist()
    assert (refused["code"], refused["line"]) == (code, 2)
    assert json.loads(refused["raw"])["prompt"] == "r"
    assert rows.records["line"].to_pylist() == [1, 3]


@writers
def test_views_have_the_guards_too(read: Read, write: Write) -> None:
    if write is parquet:
        pytest.skip("Parquet has no views")
    views = pa.array(["q", "a\0b and so on, longer than a view", "s"]).cast(pa.string_view())

    rows = read(write(pa.table({**GOOD, "meta": views})), name="rows.bin")

    assert rows.rejected["code"].to_pylist() == ["R204"]


@writers
def test_nul_is_kept_where_it_is_allowed(read: Read, write: Write) -> None:
    table = pa.table({**GOOD, "prompt": pa.array(["q", "r\0", "s"])})

    assert read(write(table), name="rows.bin", limits=Limits(allow_nul=True)).counts.pairs == 3


@writers
def test_a_text_that_is_not_utf_8_spoils_only_its_row(read: Read, write: Write) -> None:
    rows = read(write(pa.table({**GOOD, "prompt": BAD_TEXT})), name="rows.bin")

    (refused,) = rows.rejected.to_pylist()
    assert (refused["code"], refused["line"]) == ("R202", 2)
    assert [p[0]["content"] for p in rows.records["prompt"].to_pylist()] == ["q", "s"]


@writers
def test_a_row_longer_than_the_limit_is_not_read(read: Read, write: Write) -> None:
    table = pa.table({**GOOD, "prompt": pa.array(["q", "x" * 20_000, "s"])})

    rows = read(write(table), name="rows.bin", limits=Limits(max_line_bytes=10_000))

    assert (rows.rejected["code"].to_pylist(), rows.rejected["line"].to_pylist()) == (["R212"], [2])
    assert rows.counts.pairs == 2


# Values that JSON represents differently, and the result for the second row.
VALUES = {
    "nanoseconds": (pa.array([0, 1, 2], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
    "a date out of range": (pa.array([0, 2**31 - 1, 0], pa.int32()).view(pa.date32()), None),
    "a time out of range": (pa.array([0, 10**18, 0], pa.timestamp("us")), None),
    "an unknown time zone": (
        pa.array([0, 1, 2], pa.timestamp("us", tz="Mars/Olympus")),
        "1970-01-01 00:00:00.000001",
    ),
    "a long duration": (pa.array([0, 2**62, 0]).view(pa.duration("s")), str(2**62)),
    "a time of day": (pa.array([0, 1, 2]).view(pa.time64("ns")), "00:00:00.000000001"),
    "a zone in a list": (lists(pa.array([0, 1, 2], pa.timestamp("ns", tz="Mars/X"))), None),
    "an exact decimal": (pa.array([Decimal("1.5"), Decimal("4.5"), None]), 4.5),
    "a decimal of 30 digits": (
        pa.array([Decimal(1), Decimal(10**29), None], pa.decimal128(38, 0)),
        str(10**29),
    ),
    "a map": (
        pa.array([[("a", 1)], [("b", 2)], None], pa.map_(pa.string(), pa.int64())),
        {"b": 2},
    ),
    "bytes": (pa.array([b"a", b"\xff", b"c"]), b"\xff"),
    "a dictionary in a list": (lists(pa.array(["a", "b", "a"]).dictionary_encode()), ["b"]),
}


@pytest.mark.parametrize("write", [parquet, arrow])
@pytest.mark.parametrize(("values", "wanted"), VALUES.values(), ids=VALUES.keys())
def test_values_that_json_does_not_have(
    tmp_path: Path, write: Write, values: pa.Array, wanted: Any
) -> None:
    path = tmp_path / "rows.bin"
    path.write_bytes(write(pa.table({**GOOD, "meta": values})))

    rows = [value for *_, value in objects(path)]

    assert [row["prompt"] for row in rows] == ["q", "r", "s"]
    if wanted is not None:
        assert rows[1]["meta"] == wanted
    else:
        assert "range" in str(rows[1]["meta"]) or "1970" in str(rows[1]["meta"])


def objects(path: Path) -> list[tuple[Any, ...]]:
    blocks = OpenFile(InputFile(path, path.name, 0), Limits())
    return [row for block in blocks for row in read_rows(block, Limits(), Tally())]


def named(*names: str) -> pa.Table:
    return pa.Table.from_arrays([pa.array(["a"])] * len(names), names=list(names))


def twice(*names: str) -> pa.Array:
    return pa.StructArray.from_arrays([pa.array(["a"])] * len(names), names=list(names))


FOREIGN = {
    "a column twice": (named("prompt", "chosen", "rejected", "chosen"), "E163"),
    "an unread column twice": (named("prompt", "chosen", "rejected", "x", "x"), "E163"),
    "a column three times": (named("prompt", "prompt", "prompt", "chosen", "rejected"), "E163"),
    "a field twice": (pa.table({"prompt": twice("content", "content")}), "E163"),
    "a field twice in a list": (pa.table({"prompt": lists(twice("role", "role"))}), "E163"),
    "a field twice in a struct": (
        pa.table({"x": pa.StructArray.from_arrays([twice("a", "b", "a")], names=["y"])}),
        "E163",
    ),
    "a union": (
        pa.table({"x": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])}),
        "E166",
    ),
    "runs": (
        pa.table({"x": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), ["a"])}),
        "E166",
    ),
    "a list of views": (pa.table({"x": pa.array([["a"]], pa.list_view(pa.string()))}), "E166"),
    "an interval": (
        pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}),
        "E166",
    ),
}


@pytest.mark.parametrize("write", [parquet, arrow])
@pytest.mark.parametrize(("table", "code"), FOREIGN.values(), ids=FOREIGN.keys())
def test_columns_that_cannot_be_rows_are_one_error(
    read: Read, write: Write, table: pa.Table, code: str
) -> None:
    try:
        content = write(table)
    except (pa.ArrowException, ValueError):
        pytest.skip("the writer refuses it too")

    with pytest.raises(UsageError, match=rf"\[{code}\]$"):
        read(content, name="rows.bin")


def test_json_is_refused_for_the_same_column_twice(read: Read) -> None:
    row = b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}\n'
    good = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'

    assert read(good + row).rejected["code"].to_pylist() == ["R207"]


@pytest.mark.parametrize("write", [parquet, arrow])
def test_a_flipped_byte_in_a_column_s_name_is_one_error(read: Read, write: Write) -> None:
    content = write(pa.table(GOOD)).replace(b"rejected", b"reje\xffted")

    with pytest.raises(UsageError, match=r"\[E114\]$"):
        read(content, name="rows.bin")


def test_an_encrypted_file_is_named(read: Read) -> None:
    plain = parquet(pa.table(GOOD))

    with pytest.raises(UsageError, match=r"encrypted Parquet file.*\[E165\]$"):
        read(b"PARE" + plain[4:-4] + b"PARE", name="rows.parquet")


COMPRESSIONS = ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_every_writer_are_walked(tmp_path: Path, compression: str, version: str) -> None:
    """Small pages, dictionaries that fall back to plain text, prefixes, lists."""
    draw = random.Random(0)
    texts = ["".join(draw.choices("abc é", k=draw.randrange(200))) for _ in range(3000)]
    table = pa.table(
        {
            "prompt": texts,
            "chosen": [f"{text} yes" for text in texts],
            "rejected": [f"{text} no" for text in texts],
            "turns": [[{"role": "user", "content": text[:9]}] * (len(text) % 3) for text in texts],
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(
        table,
        path,
        compression=compression,
        data_page_version=version,
        data_page_size=4096,
        dictionary_pagesize_limit=8192,
        row_group_size=1700,
        use_dictionary=["prompt", "turns.list.element.role", "turns.list.element.content"],
        column_encoding={"chosen": "DELTA_BYTE_ARRAY", "rejected": "DELTA_LENGTH_BYTE_ARRAY"},
    )

    assert [value for *_, value in objects(path)] == table.to_pylist()


@pytest.mark.parametrize("write", ["write_parquet", "write_ipc"])
def test_files_of_polars_are_read(tmp_path: Path, write: str) -> None:
    frame = pl.DataFrame(
        {
            "prompt": [f"q{n}" for n in range(3000)],
            "kind": pl.Series(["a", "b", None] * 1000, dtype=pl.Categorical),
            "turns": [[{"role": "user", "content": f"long text number {n}"}] for n in range(3000)],
        }
    )
    path = tmp_path / "rows.bin"
    getattr(frame, write)(path)

    assert [value for *_, value in objects(path)] == frame.to_dicts()


@pytest.mark.stress
def test_rows_are_as_many_as_the_file_says(tmp_path: Path) -> None:
    """A second count: the metadata's own number of rows, and Arrow's own values."""
    path = tmp_path / "rows.bin"
    for seed in range(times(12, 400)):
        draw = random.Random(seed)
        number = draw.randrange(4000)
        table = pa.table(
            {
                "prompt": ["".join(draw.choices("ab é\n", k=draw.randrange(9)))] * number,
                "score": [draw.choice([None, 1.5, 2])] * number,
                "turns": [[{"role": draw.choice("ab")}] * draw.randrange(3)] * number,
                "when": pa.array([draw.randrange(10**9)] * number, pa.timestamp("s")),
            }
        )
        if draw.random() < 0.5:
            pq.write_table(table, path, row_group_size=draw.randrange(1, 3000))
            stated = pq.read_metadata(path).num_rows
        else:
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=draw.randrange(1, 3000))
            with pa.ipc.open_file(str(path)) as file:
                stated = sum(file.get_batch(n).num_rows for n in range(file.num_record_batches))

        rows = objects(path)

        assert len(rows) == stated == number
        assert [row for row, *_ in rows] == list(range(1, number + 1))
        assert [value for *_, value in rows] == table.to_pylist()


def test_a_timestamp_stays_what_it_was(read: Read) -> None:
    """Values that Python can represent are unchanged, also in the JSON kept of a refused row."""
    when = pa.array([datetime.datetime(2024, 1, 2, 3, 4, 5)] * 3)
    table = pa.table({**GOOD, "chosen": pa.array(["a", None, "c"]), "when": when})

    (refused,) = read(parquet(table), name="rows.bin").rejected.to_pylist()

    assert json.loads(refused["raw"])["when"].replace("T", " ") == "2024-01-02 03:04:05"
