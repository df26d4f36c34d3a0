"""Stages on this machine: in this process, or on several that start afresh (spawn)."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from prefdata.errors import PrefdataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this a process takes longer to start than it saves.
_BYTES_PER_WORKER = 32 << 20


def choose_workers(asked: int | None, total_bytes: int) -> int:
    """As many processes as asked for, or as the inputs are worth."""
    cores = len(os.sched_getaffinity(0))
    return asked if asked is not None else max(1, min(cores, total_bytes // _BYTES_PER_WORKER))


def map_items(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    on_done: Callable[[Result], None],
) -> list[Result]:
    """The results in the order of the items, whoever made them when.

    `on_done` is called in this process, once for each result and in order, as soon as it is there.
    """
    results = []
    if workers == 1 or len(items) <= 1:
        for item in items:
            results.append(function(item))
            on_done(results[-1])
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                results.append(future.result())
                on_done(results[-1])
        except BrokenProcessPool as error:
            problem = "a worker process was killed, most likely for want of memory"
            raise PrefdataError(
                "E150", "workers", problem, "lower workers or shard_rows"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return results
