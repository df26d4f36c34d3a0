"""Hostile files take little memory: the peak is measured in a separate process."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.effort import times

READ = """
import sys
from prefdata.errors import UsageError
from prefdata.read import Limits, expand_inputs, load_layout
from tests.prefdata.read.rows import read_file

def read(path):
    (file,) = expand_inputs([path])
    try:
        rows = read_file(
            file,
            layout=load_layout("hh"),
            limits=Limits(ratio_after_bytes=2**22),
        )
    except UsageError as error:
        return error.code
    return " ".join(rows.rejected["code"].to_pylist())

def peak():  # getrusage would count the memory of the process that started this one
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

small, large = sys.argv[1:]
read(small)
before = peak()
print(read(large), peak() - before)
"""
MIB = 2**20


def long_line(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(times(256, 1024)):
            file.write(b"x" * MIB)
        file.write(b"\n{}\n")


def zstd_bomb(path: Path) -> None:
    with zstandard.open(path, "wb") as file:
        for _ in range(1024):
            file.write(b"\n" * MIB)


def gzip_bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(200):
            file.write(b"x" * MIB)


@pytest.mark.stress
@pytest.mark.parametrize(
    ("write", "code"),
    [(long_line, "R212 R211"), (zstd_bomb, "E113"), (gzip_bomb, "E113")],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_a_hostile_file_takes_no_more_than_64_mib(
    tmp_path: Path, write: Callable[[Path], None], code: str
) -> None:
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_bytes(b"{}\n")
    write(large)

    command = [sys.executable, "-c", READ, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    *codes, grown = done.stdout.split()
    assert " ".join(codes) == code
    assert int(grown) <= 64
