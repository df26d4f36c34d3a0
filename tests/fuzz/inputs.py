"""Damaged inputs of every format, and the number of rows that another parser finds in them."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.fuzz.mutate import damaged

Row = dict[str, Any]


def plain_rows(random: Random) -> list[Row]:
    return [
        {"prompt": f"What is {n}?", "chosen": f" It is {n}, é", "rejected": f' "No" {n}\n'}
        for n in range(random.randint(1, 8))
    ]


def chat_rows(random: Random) -> list[Row]:
    return [
        {
            "prompt": [{"role": "user", "content": f"Hi {n}"}],
            "chosen": [{"role": "assistant", "content": f"Yes {n}"}],
            "rejected": [{"role": "assistant", "content": f"no {n}"}],
            "score_chosen": 1.0 + n,
        }
        for n in range(random.randint(1, 8))
    ]


def hh_rows(random: Random) -> list[Row]:
    talk = "\n\nHuman: Hi\n\nAssistant: Yes."
    return [
        {
            side: f"{talk}\n\nHuman: And {n}?\n\nAssistant: {side} {n}"
            for side in ("chosen", "rejected")
        }
        for n in range(random.randint(1, 8))
    ]


def ranked_rows(random: Random) -> list[Row]:
    return [
        {
            "prompt": f"Tell {n}",
            "completions": [{"text": f"a {k}", "score": float(k)} for k in range(3)],
        }
        for n in range(random.randint(1, 6))
    ]


def unpaired_rows(random: Random) -> list[Row]:
    return [
        {"prompt": f"Say {n // 2}", "completion": f"this {n}", "label": n % 2 == 0}
        for n in range(random.randint(2, 10))
    ]


def lines_of(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array_of(rows: list[Row]) -> bytes:
    return json.dumps(rows, indent=len(rows) % 3 or None, ensure_ascii=False).encode()


def separated(rows: list[Row], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


ODD_COLUMNS: tuple[Callable[[int], pa.Array], ...] = (
    lambda n: pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * n, pa.timestamp("ns", "UTC")),
    lambda n: pa.array([2**62] * n, pa.timestamp("us", "Nowhere/Else")),
    lambda n: pa.array([2**50] * n, pa.timestamp("s")),
    lambda n: pa.array([2**31 - 1] * n, pa.date32()),
    lambda n: pa.array([1] * n, pa.duration("ns")),
    lambda n: pa.array([float("nan")] * n),
    lambda n: pa.array([float("inf")] * n),
    lambda n: pa.array(["a\0b"] * n),
    lambda n: pa.array([b"\xff\xfe"] * n),
    lambda n: pa.array([Decimal("1.50")] * n, pa.decimal128(38, 2)),
    lambda n: pa.array([["a", None]] * n),
    lambda n: pa.array([{"a": 1, "b": None}] * n),
    lambda n: pa.array(["x"] * n).dictionary_encode(),
    lambda n: pa.array(["x"] * n, pa.large_string()),
    lambda n: pa.array([None] * n, pa.null()),
    lambda n: pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    lambda n: pa.array([True] * n),
    lambda n: pa.array([2**64 - 1] * n, pa.uint64()),
)
ODD_NAMES = ("extra", "system", "chosen", "prompt", "split", "a\x1b[31m", "", "é\u202e", "x" * 600)


def table_of(rows: list[Row], random: Random) -> pa.Table:
    """Return a table of the rows, often with a column replaced or added."""
    table = pa.Table.from_pylist(rows)
    if random.random() < 0.6:
        column = random.choice(ODD_COLUMNS)(table.num_rows)
        name = random.choice(ODD_NAMES)
        if name in table.column_names and random.random() < 0.7:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table


def parquet_of(rows: list[Row], random: Random) -> bytes:
    sink = io.BytesIO()
    packing = random.choice(("snappy", "zstd", "gzip", "none"))
    pq.write_table(table_of(rows, random), sink, compression=packing, row_group_size=3)
    return sink.getvalue()


def arrow_of(rows: list[Row], random: Random) -> bytes:
    table, sink = table_of(rows, random), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue()


class Format(NamedTuple):
    """Recipe of a file: how to make it from rows and a seed, and where to damage it."""

    suffix: str
    rows: Callable[[Random], list[Row]]
    write: Callable[[list[Row], Random], bytes]
    pack: Callable[[bytes], bytes] | None = None


def _gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


FORMATS: dict[str, Format] = {
    "jsonl": Format(".jsonl", plain_rows, lambda rows, _: lines_of(rows)),
    "chat jsonl": Format(".jsonl", chat_rows, lambda rows, _: lines_of(rows)),
    "hh jsonl": Format(".jsonl", hh_rows, lambda rows, _: lines_of(rows)),
    "ranked jsonl": Format(".jsonl", ranked_rows, lambda rows, _: lines_of(rows)),
    "unpaired jsonl": Format(".jsonl", unpaired_rows, lambda rows, _: lines_of(rows)),
    "array": Format(".json", plain_rows, lambda rows, _: array_of(rows)),
    "csv": Format(".csv", plain_rows, lambda rows, _: separated(rows, ",")),
    "tsv": Format(".tsv", plain_rows, lambda rows, _: separated(rows, "\t")),
    "parquet": Format(".parquet", chat_rows, parquet_of),
    "plain parquet": Format(".parquet", plain_rows, parquet_of),
    "arrow": Format(".arrow", plain_rows, arrow_of),
    "jsonl.gz": Format(".jsonl.gz", chat_rows, lambda rows, _: lines_of(rows), _gz),
    "jsonl.zst": Format(".jsonl.zst", plain_rows, lambda rows, _: lines_of(rows), _zst),
    "csv.gz": Format(".csv.gz", plain_rows, lambda rows, _: separated(rows, ","), _gz),
}


class Input(NamedTuple):
    """One damaged file."""

    suffix: str
    data: bytes


def make_input(name: str, number: int) -> Input:
    """Return the file of a format and a number; it is deterministic."""
    random, form = Random(f"{name} {number}"), FORMATS[name]
    data = form.write(form.rows(random), random)
    is_table = form.suffix in (".parquet", ".arrow")
    if form.pack is not None:
        if random.random() < 0.5:
            return Input(form.suffix, damaged(form.pack(data), random))
        return Input(form.suffix, form.pack(damaged(data, random)))
    # half of the tables are unusual but intact: a flipped bit mostly ends in "is damaged"
    return Input(form.suffix, data if is_table and random.random() < 0.5 else damaged(data, random))


def num_rows(path: Path, data: bytes) -> int | None:
    """Return the rows that another parser finds, blank lines left out; None if it finds none."""
    if data.startswith(b"PAR1"):
        return _try(lambda: pq.ParquetFile(path).metadata.num_rows)
    if data.startswith(b"ARROW1"):
        return _try(lambda: pa.ipc.open_file(pa.BufferReader(data)).read_all().num_rows)
    text = unpacked(data)
    if text is None or ".csv" in path.name or ".tsv" in path.name:
        return None if text is None else _num_records(text, "," if ".csv" in path.name else "\t")
    text = text.removeprefix(b"\xef\xbb\xbf")
    if text.lstrip().startswith(b"["):
        return _try(lambda: len(json.loads(text)))
    return sum(1 for line in text.split(b"\n") if line.strip(b" \t\r"))


def unpacked(data: bytes) -> bytes | None:
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as file:
                return file.read()
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return None
    return data


def _num_records(text: bytes, delimiter: str) -> int | None:
    """Return the number of records below the header; None if it has another delimiter."""
    decoded = text.decode("utf-8", errors="replace").removeprefix("\ufeff")
    if delimiter not in decoded.partition("\n")[0] or decoded.startswith("sep="):
        return None
    csv.field_size_limit(1 << 30)
    lines = decoded.split("\n")  # a CR without LF does not end a record
    reader = csv.reader([f"{line}\n" for line in lines[:-1]] + lines[-1:], delimiter=delimiter)

    def count() -> int:
        found, last = -1, 0  # the header is not counted
        for _ in reader:
            found += any(line.strip() for line in lines[last : reader.line_num])
            last = reader.line_num
        return found

    return _try(count)


def _try(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError, csv.Error):
        return None
