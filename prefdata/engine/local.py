"""Stages on this machine: in this process, or in several spawned ones."""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Generic, TypeVar

from prefdata.errors import PrefdataError, Terminated, crossing, working_on

Item = TypeVar("Item")
Result = TypeVar("Result")

# With fewer bytes a process takes longer to start than it saves.
_BYTES_PER_WORKER = 32 << 20
_MOST_PROCESSES = 61 if sys.platform == "win32" else 1 << 16  # Windows waits for 63 handles
_HOLDS_SIGNALS = hasattr(signal, "pthread_sigmask")  # not on Windows
_WAITING = 2  # tasks that wait for a worker, so that no worker is idle


def choose_workers(asked: int | None, total_bytes: int) -> int:
    """Return the number of processes asked for, or one that fits the inputs' size."""
    cores = usable_cores()
    return asked if asked is not None else max(1, min(cores, total_bytes // _BYTES_PER_WORKER))


def usable_cores() -> int:
    """Return the number of cores that this process may use; macOS and Windows name only all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Done(Generic[Result]):
    """A finished result in place of an item, which needs no work."""

    def __init__(self, result: Result) -> None:
        self.result = result


class Workers:
    """Pool of worker processes, open as a context; one worker is this process itself."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Terminated):
            for process in list((self._pool._processes or {}).values()) if self._pool else ():
                process.terminate()  # in the middle of their work; recorded steps are kept
        self.rest()

    def prepare(self, folder: Path, sizes: Mapping[Path, int]) -> None:
        """Do nothing: processes of this machine see what this one sees."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Done[Result]]
    ) -> Iterator[Result]:
        """Yield the results in the order of the items, not in the order in which they finish.

        Items are taken as they are needed, so that few of them exist at a time.
        """
        if self.number == 1:
            for item in items:
                if isinstance(item, Done):
                    yield item.result
                else:
                    with working_on(_place(item)):
                        result = function(item)
                    yield result
            return
        waiting: deque[Future[Result] | Done[Result]] = deque()
        try:
            for item in items:
                waiting.append(item if isinstance(item, Done) else self._submit(function, item))
                if len(waiting) >= self.number + _WAITING:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        except BrokenProcessPool as error:
            problem = "a worker process was killed, most likely because memory ran out"
            raise PrefdataError("E150", "workers", problem, "lower workers") from error

    def rest(self) -> None:
        """Shut the processes down, to free their memory, until there is work again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Submit an item to a worker. Workers ignore Ctrl-C: the parent process stops them."""
        with _without_interrupts():
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                threads = max(1, usable_cores() // self.number)
                self._pool = ProcessPoolExecutor(
                    min(self.number, _MOST_PROCESSES),
                    mp_context=context,
                    initializer=_start,
                    initargs=(threads,),
                )
            return self._pool.submit(run_there, function, item)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for this process, and forever for those that start now."""
    if not _HOLDS_SIGNALS:  # `_start` ignores it
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run_there(function: Callable[[Item], Result], item: Item) -> Result:
    """Process an item in a worker, and bring its exceptions back unchanged."""
    with crossing(_place(item)):
        return function(item)


def _place(item: object) -> str:
    """Return an item's place, for messages."""
    return str(getattr(item, "about", None) or type(item).__name__)


def _start(threads: int) -> None:
    """Initialize a worker: limit threads to its share of cores, and exit if the parent dies.

    Threads that wait for a core cost a tenth more, and orphaned workers would wait forever.
    """
    for name in ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    if not _HOLDS_SIGNALS:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _result(found: Future[Result] | Done[Result]) -> Result:
    return found.result if isinstance(found, Done) else found.result()
