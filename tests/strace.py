"""Faults at system calls of a process, by strace: a signal, or an error that the call returns."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

IS_HERE = shutil.which("strace") is not None
CALLS = "write,pwrite64,rename,renameat2,fsync,ftruncate,unlink"
_TRACE = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}"]


def run_with(fault: str, arguments: Sequence[str], point: int) -> subprocess.CompletedProcess[str]:
    """Run with a fault at the nth of these calls, such as `signal=KILL` or `error=ENOSPC`."""
    inject = ["-o", "/dev/null", "-e", f"inject={CALLS}:{fault}:when={point}"]
    return subprocess.run(
        [*_TRACE, *inject, *arguments], capture_output=True, text=True, check=False
    )


def count_calls(arguments: Sequence[str], log: Path) -> int:
    """How many such calls an undisturbed run makes."""
    subprocess.run([*_TRACE, "-o", str(log), *arguments], capture_output=True, check=True)
    return len(log.read_text().splitlines())


def spread(total: int, points: int) -> list[int]:
    """So many calls of `total`, the first and the last among them."""
    return sorted({1 + n * (total - 1) // (points - 1) for n in range(points)})
