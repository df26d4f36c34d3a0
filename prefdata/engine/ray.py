"""Stages on a Ray cluster, whose machines share the directories of inputs and output.

The functions are the same as locally, and the results come back in the order of their items, so
the bytes of a build do not depend on the engine.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prefdata.engine.local import Done, Item, Result
from prefdata.errors import PrefdataError, UsageError

_WAITING = 2  # tasks that wait for each core, so that no core is idle


class RayWorkers:
    """A Ray cluster: the running one (RAY_ADDRESS), or one started on this machine."""

    def __init__(self, number: int | None) -> None:
        self._number = number
        self._ray: Any = None
        self._is_ours = False

    def __enter__(self) -> "RayWorkers":
        try:
            import ray
        except ImportError as error:
            remedy = "pip install 'prefdata-dpo[ray]', or leave engine out"
            raise UsageError("C120", "engine: ray", "Ray is not installed", remedy) from error
        self._ray = ray
        if not ray.is_initialized():
            ray.init(num_cpus=self._number, log_to_driver=False, include_dashboard=False)
            self._is_ours = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def rest(self) -> None:
        """Keep the processes: the cluster manages them."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Done[Result]]
    ) -> Iterator[Result]:
        """Yield the results in the order of the items; few items wait at a time."""
        task = self._ray.remote(function)
        most = _WAITING * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        for item in items:
            waiting.append(item if isinstance(item, Done) else task.remote(item))
            if len(waiting) >= most:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, found: Any) -> Any:
        if isinstance(found, Done):
            return found.result
        try:
            return self._ray.get(found)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PrefdataError):
                raise error.cause from error
            raise
        except self._ray.exceptions.RayError as error:
            problem = f"a worker was lost ({type(error).__name__})"
            remedy = "check that the cluster has memory, and run again: what is done is kept"
            raise PrefdataError("E150", "engine: ray", problem, remedy) from error
