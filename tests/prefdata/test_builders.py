"""Concurrent builders in one directory: one wins, the others stop at once with an error."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

import prefdata
from prefdata.building import build
from prefdata.config import BuildConfig
from prefdata.errors import LockedError
from tests.effort import times
from tests.prefdata.conftest import chat_rows, write_rows

pytestmark = pytest.mark.stress
ROUNDS = times(2, 50)


def contend(gate: Barrier, config: BuildConfig, rounds: int, ends: "multiprocessing.Queue") -> None:  # type: ignore[type-arg]
    """Build into a new directory each round, and report how it ended."""
    for number in range(rounds):
        mine = config.model_copy(update={"out": config.out / str(number)})
        gate.wait()
        try:
            build(mine)
            end = "built"
        except LockedError as error:
            end = error.code
        ends.put((number, end))
        gate.wait()


@pytest.mark.parametrize("builders", [2, 8])
def test_one_builder_wins(builders: int, tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(10_000))
    config = BuildConfig(inputs=[str(rows)], tokenizer=str(tiny), out=tmp_path / "out", workers=1)
    context = multiprocessing.get_context("spawn")
    gate, ends = context.Barrier(builders), context.Queue()
    processes = [
        context.Process(target=contend, args=(gate, config, ROUNDS, ends)) for _ in range(builders)
    ]
    for process in processes:
        process.start()
    found = [ends.get(timeout=600) for _ in range(builders * ROUNDS)]
    for process in processes:
        process.join()

    for number in range(ROUNDS):
        how = sorted(end for round_, end in found if round_ == number)
        assert how == ["E141"] * (builders - 1) + ["built"]
        assert prefdata.open(config.out / str(number)).manifest.is_whole()


def test_the_lock_of_a_killed_builder_is_free_at_once(tiny: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(20_000))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "prefdata", "build", str(rows), "--tokenizer", str(tiny)]
    process = subprocess.Popen([*command, "-o", str(out), "--workers", "2"])
    while not (out / ".building" / "parts").exists():
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children, "its workers"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlives its parent process"
        time.sleep(0.05)

    config = BuildConfig(inputs=[str(rows)], tokenizer=str(tiny), out=out, workers=1)
    assert build(config).manifest.is_whole()
