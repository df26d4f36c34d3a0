"""Small files that claim to be large: a code, and little memory, measured in a new process."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.effort import IS_FULL

MIB = 2**20
Bomb = Callable[[Path], object]
READ = """
import sys
from prefdata.errors import UsageError
from prefdata.read import Limits, Pairing, expand_inputs, load_layout
from tests.prefdata.read.rows import read_file

def read(path):
    (file,) = expand_inputs([path])
    layout = load_layout("trl-std-explicit")
    try:
        rows = read_file(file, layout=layout, )
    except UsageError as error:
        return error.code
    return " ".join(rows.rejected["code"].to_pylist())

def peak():  # getrusage would count the memory of the process that started this one
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

small, *bombs = sys.argv[1:]
read(small)
for bomb in bombs:
    open("/proc/self/clear_refs", "w").write("5")  # reset the peak
    before = peak()
    print(read(bomb), peak() - before)
"""


def table_of(**columns: pa.Array) -> pa.Table:
    return pa.table(columns)


def same_values(number: int, value: str) -> pa.Array:
    places = pa.array(np.zeros(number, np.int8))
    return pa.DictionaryArray.from_arrays(places, pa.array([value]))


def parquet(table: pa.Table, **how: object) -> Bomb:
    options = {"compression": "zstd", "store_schema": False, **how}
    return lambda path: pq.write_table(table, path, **options)


def arrow(table: pa.Table, compression: str | None = None) -> Bomb:
    def write(path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.ipc.new_file(str(path), table.schema, options=options) as writer:
            writer.write_table(table)

    return write


def lists(ends: list[int], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


def views() -> pa.Array:
    """Return many texts that share the same bytes."""
    places = np.zeros((2000, 4), np.int32)
    places[:, :2] = MIB, 0x78787878
    return pa.Array.from_buffers(
        pa.string_view(), 2000, [None, pa.py_buffer(places.tobytes()), pa.py_buffer(b"x" * MIB)]
    )


LONG = "x" * MIB
TABLES: dict[str, tuple[Bomb, str]] = {
    "Parquet, one value in every row": (
        parquet(table_of(prompt=same_values(120, LONG), chosen=same_values(120, LONG))),
        "E113",
    ),
    "Parquet, one value in the list of a row": (
        parquet(table_of(prompt=lists([0, 120], same_values(120, LONG)))),
        "E113",
    ),
    "Parquet, one value in the lists of all rows": (
        parquet(table_of(prompt=lists(list(range(121)), same_values(120, LONG)))),
        "E113",
    ),
    "Parquet, a page": (parquet(table_of(prompt=pa.array(["x" * 80 * MIB]))), "E113"),
    "Parquet, a gzip page": (
        parquet(table_of(prompt=pa.array(["x" * 80 * MIB])), compression="gzip"),
        "E113",
    ),
    "Parquet, pages of many columns": (
        parquet(pa.table({f"c{n}": [LONG * 4] for n in range(20)})),
        "E113",
    ),
    "Parquet, rows of nothing": (parquet(table_of(prompt=pa.nulls(9_000_000, pa.int8()))), "E113"),
    "Parquet, a list of nothing": (
        parquet(table_of(prompt=lists([0, 9_000_000], pa.nulls(9_000_000, pa.int8())))),
        "E113",
    ),
    "Parquet, prefixes": (
        parquet(
            table_of(prompt=pa.array([LONG] * 100)),
            use_dictionary=False,
            column_encoding={"prompt": "DELTA_BYTE_ARRAY"},
        ),
        "E113",
    ),
    "Parquet, wide bytes": (
        parquet(table_of(prompt=pa.array([b"x" * MIB] * 80, pa.binary(MIB)))),
        "E166",
    ),
    "Arrow, one value in every row": (arrow(table_of(prompt=same_values(100_000, LONG))), "E113"),
    "Arrow, one value in the list of a row": (
        arrow(table_of(prompt=lists([0, 100_000], same_values(100_000, LONG)))),
        "E113",
    ),
    "Arrow, rows of nothing": (arrow(table_of(prompt=pa.nulls(2**31 - 1))), "E113"),
    "Arrow, a list of nothing": (
        arrow(table_of(prompt=lists([0, 2**31 - 1], pa.nulls(2**31 - 1)))),
        "E113",
    ),
    "Arrow, lists of one size": (
        arrow(table_of(prompt=pa.FixedSizeListArray.from_arrays(pa.nulls(2**30), 2**30))),
        "E113",
    ),
    "Arrow, runs": (
        arrow(table_of(prompt=pa.RunEndEncodedArray.from_arrays(pa.array([2**30]), ["x"]))),
        "E166",
    ),
    "Arrow, views": (arrow(table_of(prompt=views())), "E113"),
    "Feather, zstd": (arrow(table_of(prompt=pa.array(["x" * 80 * MIB])), "zstd"), "E113"),
    "Feather, lz4": (arrow(table_of(prompt=pa.array(["x" * 80 * MIB])), "lz4"), "E113"),
    "Feather, dictionaries": (
        arrow(table_of(**{f"c{n}": same_values(1, LONG * 4) for n in range(20)}), "zstd"),
        "E113",
    ),
}


def measure(
    folder: Path, bombs: dict[str, tuple[Bomb, str]], small: Bomb, suffix: str = ""
) -> dict[str, str]:
    """Read all bombs in one process; return each one's code and memory growth so far in MiB."""
    paths = [folder / f"bomb-{number}{suffix}" for number in range(len(bombs))]
    for path, (write, _) in zip(paths, bombs.values(), strict=True):
        write(path)
    base = folder / f"small{suffix}"
    small(base)
    lines = []
    for some in [[path] for path in paths] if IS_FULL else [paths]:  # memory is reused
        command = [sys.executable, "-c", READ, *map(str, [base, *some])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines += done.stdout.splitlines()
    return dict(zip(bombs, lines, strict=True))


@pytest.mark.stress
def test_a_bomb_of_a_table_takes_no_more_than_256_mib(tmp_path: Path) -> None:
    small = parquet(pa.table({side: ["a"] for side in ("prompt", "chosen", "rejected")}))

    found = measure(tmp_path, TABLES, small)

    assert {name: line.split()[0] for name, line in found.items()} == {
        name: code for name, (_, code) in TABLES.items()
    }
    assert max(int(line.split()[-1]) for line in found.values()) <= 256, found


def packed(pack: Callable[[bytes], bytes], block: bytes, number: int) -> Bomb:
    """Return a writer of a file of many members, which is cheap to write."""
    return lambda path: path.write_bytes(pack(block * (MIB // len(block))) * number)


def zstd(data: bytes) -> bytes:
    return zstandard.compress(data)


def repeated(before: bytes, block: bytes, num_bytes: int, after: bytes = b"") -> Bomb:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(before)
            for _ in range(num_bytes // MIB):
                file.write(block * (MIB // len(block)))
            file.write(after)

    return write


HEADER = b"prompt,chosen,rejected\n"
LARGE = (512 if IS_FULL else 128) * MIB
ONE = (15 if IS_FULL else 5) * MIB  # below the limit of a line
TEXTS: dict[str, tuple[Bomb, str]] = {
    "gzip of newlines": (packed(gzip.compress, b"\n", 100), "E113"),
    "gzip of objects": (packed(gzip.compress, b"{}\n", 100), "E113"),
    "gzip of an array": (packed(gzip.compress, b"[{},", 100), "E113"),
    "zstd of newlines": (packed(zstd, b"\n", 100), "E113"),
    "zstd of one line": (packed(zstd, b"x", 100), "E113"),
    "zstd of brackets": (packed(zstd, b"[", 100), "E113"),
    "JSON Lines, a line": (repeated(b"", b"x", LARGE, b"\n"), "R212"),
    "JSON Lines, lists": (repeated(b'{"a": [', b"[],", ONE, b"0]}\n"), "R216"),
    "JSON Lines, objects": (repeated(b'{"a": [', b'{"a":0},', ONE, b"0]}\n"), "R216"),
    "JSON Lines, numbers": (repeated(b'{"a": [', b"0.1,", ONE, b"0]}\n"), "R216"),
    "array, an element": (repeated(b'[{"a": "', b"x", LARGE, b'"}]'), "R212"),
    "array, lists": (repeated(b'[{"a": [', b"[],", ONE, b"0]}]"), "R216"),
    "array, brackets": (repeated(b"", b"[", LARGE), "E105"),
    "CSV, a quote": (repeated(HEADER + b'"', b"x,y\n", LARGE), "E161"),
    "CSV, a line": (repeated(HEADER, b"x", LARGE, b"\n"), "R212"),
    "CSV, fields": (repeated(HEADER, b"ab,", ONE, b"\n"), "R201"),
    "CSV, a header": (repeated(b"", b"ab,", ONE, b"\n"), "E164"),
    "CSV, gzip": (packed(gzip.compress, b"a,b,c\n", 100), "E113"),
}


@pytest.mark.stress
def test_a_bomb_of_text_takes_no_more_than_64_mib(tmp_path: Path) -> None:
    csv = {name: bomb for name, bomb in TEXTS.items() if name.startswith("CSV")}
    json = {name: bomb for name, bomb in TEXTS.items() if name not in csv}
    found: dict[str, str] = {}
    for part, suffix, small in ((json, "", b"{}\n"), (csv, ".csv", HEADER + b"a,b,c\n")):
        found |= measure(tmp_path, part, repeated(small, b"", 0), suffix)

    assert {name: line.split()[0] for name, line in found.items()} == {
        name: code for name, (_, code) in TEXTS.items()
    }
    assert max(int(line.split()[-1]) for line in found.values()) <= 64, found
