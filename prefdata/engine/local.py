"""Stages on this machine: in this process, or on several that start afresh (spawn)."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from threading import Thread
from types import TracebackType
from typing import Generic, TypeVar

from prefdata.errors import PrefdataError, Terminated
from prefdata.unexpected import crossing, working_on

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this a process takes longer to start than it saves.
_BYTES_PER_WORKER = 32 << 20
_WAITING = 2  # tasks that wait for a worker, so that none is idle


def choose_workers(asked: int | None, total_bytes: int) -> int:
    """As many processes as asked for, or as the inputs are worth."""
    cores = len(os.sched_getaffinity(0))
    return asked if asked is not None else max(1, min(cores, total_bytes // _BYTES_PER_WORKER))


class Done(Generic[Result]):
    """A result that needs no work, in the place of an item."""

    def __init__(self, result: Result) -> None:
        self.result = result


class Workers:
    """Where stages run, for as long as it is open; one worker is this process itself."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, Terminated):
            self._end_at_once()
        self.rest()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Done[Result]]
    ) -> Iterator[Result]:
        """The results in the order of the items, whoever made them when.

        Items are taken as they are needed, so that few of them exist at a time.
        """
        if self.number == 1:
            for item in items:
                yield item.result if isinstance(item, Done) else _here(function, item)
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
            problem = "a worker process was killed, most likely for want of memory"
            raise PrefdataError("E150", "workers", problem, "lower workers") from error

    def _end_at_once(self) -> None:
        """End the processes in the middle of their work; what is recorded by then is kept."""
        for process in list((self._pool._processes or {}).values()) if self._pool else ():
            process.terminate()

    def rest(self) -> None:
        """Let the processes go, with the memory that they hold, until there is work again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, function: Callable[[Item], Result], item: Item) -> Future[Result]:
        """Hand an item to a process. A process that starts here ignores Ctrl-C: we stop it."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a child inherits
        try:
            return self._open_pool().submit(_there, function, item)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            threads = max(1, len(os.sched_getaffinity(0)) // self.number)
            self._pool = ProcessPoolExecutor(
                self.number, mp_context=context, initializer=_start, initargs=(threads,)
            )
        return self._pool


def _here(function: Callable[[Item], Result], item: Item) -> Result:
    with working_on(_place(item)):
        return function(item)


def _there(function: Callable[[Item], Result], item: Item) -> Result:
    """Do an item in another process, whose exceptions have to come back as what they are."""
    with crossing(_place(item)):
        return function(item)


def _place(item: object) -> str:
    """Return what an item says of its place."""
    return str(getattr(item, "about", None) or type(item).__name__)


def _start(threads: int) -> None:
    """Make a process a worker: it keeps to its share of cores, and ends with its chief.

    Threads that wait for a core cost a tenth more, and a pool whose chief was killed would wait
    for work for ever.
    """
    for name in ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    Thread(target=_end_with_chief, daemon=True).start()


def _end_with_chief() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _result(found: Future[Result] | Done[Result]) -> Result:
    return found.result if isinstance(found, Done) else found.result()
