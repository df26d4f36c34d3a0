"""Limits of a template's process on macOS, whose kernel limits no memory, and on Windows.

The parent looks at the process while it waits for a reply: a template can hold the interpreter lock
of its own process for as long as it likes.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psutil

_EVERY = 0.05  # seconds between two looks; memory grows by half a gigabyte at most in that time
_AT_START = 64 << 20  # bytes of the interpreter with jinja2 and orjson


@contextmanager
def watched(
    process: subprocess.Popen[bytes], *, seconds: float, num_bytes: int, say: Callable[[str], None]
) -> Iterator[None]:
    """Kill a process that uses more processor time or memory meanwhile; `say` gets the reason."""
    done = Event()
    arguments = (process, seconds, num_bytes + _AT_START, say, done)
    watcher = Thread(target=_watch, args=arguments, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(
    process: subprocess.Popen[bytes],
    seconds: float,
    num_bytes: int,
    say: Callable[[str], None],
    done: Event,
) -> None:
    try:
        about = psutil.Process(process.pid)
        start = _cpu_seconds(about)
        while not done.wait(_EVERY):
            if _cpu_seconds(about) - start > seconds:
                say(f"it takes more than {seconds:.0f} s")
            elif about.memory_info().rss > num_bytes:
                say(f"it takes more than {num_bytes - _AT_START >> 20} MiB")
            else:
                continue
            process.kill()
            return
    except psutil.Error:  # it has ended
        return


def _cpu_seconds(about: psutil.Process) -> float:
    times = about.cpu_times()
    return float(times.user + times.system)
