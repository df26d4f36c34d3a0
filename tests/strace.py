"""Fault injection at system calls with strace: a signal, or an error that the call returns.

`--seccomp-bpf` would be faster, but strace 6.1 then delivers no signal. Calls are counted
separately by kind and thread, so a fault is identified by the call and its number.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

IS_HERE = shutil.which("strace") is not None
CALLS = "write,pwrite64,rename,renameat2,fsync,ftruncate,unlink"
_WAKES = '"\\1\\0\\0\\0\\0\\0\\0\\0", 8)'
"""Of a write that wakes a thread (eventfd), which no disk can fail."""
_SECONDS = 300


class Point(NamedTuple):
    """The nth call of one kind that a process makes."""

    call: str
    number: int


class Faulted(NamedTuple):
    """Result of a run; `has_fired` is False if it ended before the fault."""

    returncode: int
    stderr: str
    has_fired: bool


def run_with(fault: str, arguments: Sequence[str], point: Point, log: Path) -> Faulted:
    """Run a command with a fault, such as `signal=KILL` or `error=ENOSPC`, at a point.

    A signal ends any process of the command. An error meets its first thread alone: threads of
    libraries wake each other by writes, and one of those that fails would be no error of a disk.
    """
    inject = f"inject={point.call}:{fault}:when={point.number}"
    trace = ["strace", *(["-f"] if fault.startswith("signal") else [])]
    words = [*trace, "-qq", "-e", f"trace={point.call}", "-e", inject, "-o", str(log), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
    text = log.read_text(errors="replace")
    has_fired = "INJECTED" in text or "killed by SIGKILL" in text
    return Faulted(done.returncode, done.stderr, has_fired)


def points_of(arguments: Sequence[str], log: Path, count: int) -> list[Point]:
    """Return at most `count` points of a normal run, spread over its first process's calls."""
    words = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(log), *arguments]
    subprocess.run(words, capture_output=True, check=True, timeout=_SECONDS)
    lines = [line.split(None, 1) for line in log.read_text(errors="replace").splitlines()]
    parent, seen, points = lines[0][0], Counter[str](), []
    for process, text in lines:
        call = text.split("(")[0]
        if process == parent and call in CALLS.split(","):
            seen[call] += 1
            if _WAKES not in text:
                points.append(Point(call, seen[call]))
    steps = [n * (len(points) - 1) // max(count - 1, 1) for n in range(count)]
    return [points[step] for step in dict.fromkeys(steps)]
