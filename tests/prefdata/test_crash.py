"""Crash safety: a build killed at any system call leaves no partial file, and can be resumed."""

import subprocess
import sys
from pathlib import Path

import pytest

import prefdata
from prefdata.errors import PrefdataError
from tests.effort import IS_FULL, times
from tests.strace import IS_HERE, points_of, run_with

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not IS_HERE, reason="strace is not here"),
]
POINTS = times(4, 48)


def command(rows: Path, tokenizer: Path, out: Path, workers: int = 1) -> list[str]:
    return [
        sys.executable, "-m", "prefdata", "build", str(rows), "--tokenizer", str(tokenizer),
        "-o", str(out), "--workers", str(workers),
    ]  # fmt: skip


def hash_or_code(out: Path) -> str:
    try:
        return prefdata.open(out).manifest.hash
    except PrefdataError as error:
        return error.code


@pytest.mark.parametrize(("workers", "points"), [(1, POINTS), (4, times(2, 24))])
def test_a_killed_build_is_never_accepted_and_its_resume_gives_the_same_bytes(
    workers: int, points: int, rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    """Count calls in each process separately: with workers, one of them or the parent dies."""
    arguments = command(rows_file, tiny, tmp_path / "whole" / "out", workers)
    subprocess.run(command(rows_file, tiny, tmp_path / "warm"), capture_output=True, check=True)
    spread = points_of(arguments, tmp_path / "log", points)
    missed = 0
    whole = prefdata.open(tmp_path / "whole" / "out").manifest.hash
    assert len(spread) == points

    for number, point in enumerate(spread):
        out = tmp_path / f"killed-{number}" / "out"
        words = command(rows_file, tiny, out, workers)
        done = run_with("signal=KILL", words, point, tmp_path / "log")
        missed += not done.has_fired
        assert (done.returncode != 0) == done.has_fired, point
        assert hash_or_code(out) in (whole, "E132")
        subprocess.run(command(rows_file, tiny, out), capture_output=True, check=True)
        assert prefdata.open(out).manifest.hash == whole
        assert not (out / ".building").exists()
    assert missed <= max(points // 6, 1), "the last calls of a run are not as many each time"


@pytest.mark.parametrize("error", ["ENOSPC", *(["EIO"] if IS_FULL else [])])
def test_an_error_of_the_disk_is_one_line_and_the_next_run_gives_the_same_bytes(
    error: str, rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    """Fail any call that writes: the process reports it or does not need it; no file is partial."""
    arguments = command(rows_file, tiny, tmp_path / "whole" / "out")
    subprocess.run(command(rows_file, tiny, tmp_path / "warm"), capture_output=True, check=True)
    spread = points_of(arguments, tmp_path / "log", POINTS)
    whole = prefdata.open(tmp_path / "whole" / "out").manifest.hash
    assert len(spread) == POINTS

    for number, point in enumerate(spread):
        out = tmp_path / f"{error}-{number}" / "out"
        words = command(rows_file, tiny, out)
        done = run_with(f"error={error}", words, point, tmp_path / "log")
        assert done.has_fired, point
        assert "Traceback" not in done.stderr, (point, done.stderr)
        assert done.returncode in (0, 2), (point, done.stderr)
        if done.returncode == 2:
            assert "[E" in done.stderr, (point, done.stderr)
        assert hash_or_code(out) in (whole, "E132")
        subprocess.run(command(rows_file, tiny, out), capture_output=True, check=True)
        assert prefdata.open(out).manifest.hash == whole
        assert not (out / ".building").exists()
