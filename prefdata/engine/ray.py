"""Stages on a Ray cluster, whose machines share the directories of inputs and output.

The functions are the same as locally, and the results come back in the order of their items, so
the bytes of a build do not depend on the engine. Before the first stage every node says which
versions it has, and reads and writes a file in the output directory.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prefdata.engine.local import Done, Item, Result, run_there
from prefdata.errors import PrefdataError, UsageError

_WAITING = 2  # tasks that wait for each core, so that no core is idle, and a cluster that can grow
_ANSWER_SECONDS = 120  # of a node, before the first stage
_CONNECT_SECONDS = 5
_THREADS = dict.fromkeys(("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1")
_LIBRARIES = ("prefdata-dpo", "numpy", "orjson", "polars", "pyarrow", "tokenizers")
_PLACE = "engine: ray"


class RayWorkers:
    """A Ray cluster: the running one (RAY_ADDRESS, `ray start`), or one started here."""

    def __init__(self, number: int | None) -> None:
        self._number = number
        self._ray: Any = None
        self._is_ours = False

    def __enter__(self) -> "RayWorkers":
        try:
            import ray
        except ImportError as error:
            remedy = "pip install 'prefdata-dpo[ray]', or leave engine out"
            raise UsageError("C120", _PLACE, "Ray is not installed", remedy) from error
        self._ray = ray
        if ray.is_initialized():
            self._require_no_number("the Ray of this process")
            return self
        self._is_ours = True
        try:
            self._connect(os.environ.get("RAY_ADDRESS", "auto"))
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def rest(self) -> None:
        """Keep the processes: the cluster manages them."""

    def prepare(self, folder: Path, sizes: Mapping[Path, int]) -> None:
        """Raise C126 for a node with other versions, C127 for one that does not see the paths.

        `folder` is the directory that all nodes write in; `sizes` are of the files that they read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "probe-00000.arrow"
        probe.write_text(folder.as_posix())
        named = {str(path): size for path, size in sizes.items()}
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in self._nodes()}
        asked = {self._task(_answer, node).remote(str(folder), named, node): node for node in nodes}
        _, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
        for one in late:
            problem = f"node {nodes[asked[one]]} did not answer in {_ANSWER_SECONDS} s"
            raise UsageError("C124", _PLACE, problem, "check `ray status`, and run again")
        own = _versions()
        for one, node in asked.items():
            answer = self._result(one)
            if answer.versions != own:
                differing = _differing(own, answer.versions)
                problem = f"node {nodes[node]} has {differing}"
                raise UsageError("C126", _PLACE, problem, "install the same versions on all nodes")
            if answer.fault or not (folder / _name_of(node)).exists():
                fault = answer.fault or f"what it writes to {folder} is not seen here"
                remedy = "name paths on a file system that all nodes mount at the same place"
                raise UsageError("C127", _PLACE, f"node {nodes[node]}: {fault}", remedy)
            (folder / _name_of(node)).unlink()
        probe.unlink()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Done[Result]]
    ) -> Iterator[Result]:
        """Yield the results in the order of the items; few items wait at a time.

        Those that wait for a core are the demand that an autoscaler sees.
        """
        task = self._task(run_there)
        most, waiting = 1, deque[Any]()
        for item in items:
            waiting.append(item if isinstance(item, Done) else task.remote(function, item))
            if len(waiting) >= most:
                most = _WAITING * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            if len(waiting) >= most:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _connect(self, address: str) -> None:
        """Connect to the cluster at an address; `auto` starts one if none runs here."""
        quiet = {"log_to_driver": False}
        if address in ("", "auto", "local"):
            if address != "local":
                try:
                    self._ray.init(address="auto", **quiet)
                except ConnectionError:
                    pass
                else:
                    self._require_no_number("a running cluster")
                    return
            number = self._number
            self._ray.init(address="local", num_cpus=number, include_dashboard=False, **quiet)
            return
        self._require_no_number(f"the cluster at {address}")
        require_listening(address)
        try:
            self._ray.init(address=address, **quiet)
        except ImportError as error:
            remedy = "pip install 'ray[client]', or name its address without ray://"
            problem = "the client that ray:// needs is not installed"
            raise UsageError("C124", f"RAY_ADDRESS {address}", problem, remedy) from error
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise _unreachable(address, f"cannot be connected to ({said})") from error

    def _require_no_number(self, cluster: str) -> None:
        if self._number is not None:
            problem = f"workers: {self._number} has no effect on {cluster}, which has its own"
            raise UsageError("C125", _PLACE, problem, "leave workers out")

    def _nodes(self) -> list[dict[str, Any]]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return [node for node in nodes if node["Resources"].get("CPU")]

    def _task(self, function: Callable[..., Any], node: str | None = None) -> Any:
        """Return a function as a task, with the thread limits of local workers."""
        options: dict[str, Any] = {"runtime_env": {"env_vars": _THREADS}}
        if node is not None:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            options["scheduling_strategy"] = strategy
        return self._ray.remote(function).options(**options)

    def _result(self, found: Any) -> Any:
        if isinstance(found, Done):
            return found.result
        try:
            return self._ray.get(found)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PrefdataError | OSError | MemoryError):
                raise error.cause from error
            raise
        except self._ray.exceptions.RayError as error:
            problem = f"a worker was lost ({type(error).__name__})"
            remedy = "check that the cluster has memory, and run again: what is done is kept"
            raise PrefdataError("E150", _PLACE, problem, remedy) from error


class _Answer(NamedTuple):
    """What a node says before the first stage."""

    versions: dict[str, str]
    fault: str
    """Why it cannot work on the paths; empty if it can."""


def _answer(folder: str, sizes: dict[str, int], node: str) -> _Answer:
    """Read and write in a directory, and compare the sizes of files, on the node that runs this."""
    fault = ""
    try:
        if Path(folder, "probe-00000.arrow").read_text() != Path(folder).as_posix():
            fault = f"{folder} is another directory there"
        Path(folder, _name_of(node)).touch()
        for name, size in sizes.items():
            if Path(name).stat().st_size != size:
                fault = f"{name} is another file there"
    except OSError as error:
        fault = f"{error.filename} cannot be used there ({error.strerror})"
    return _Answer(_versions(), fault)


def _name_of(node: str) -> str:
    return f"probe-00000-{node[:16]}.arrow"


def _versions() -> dict[str, str]:
    return {"Python": python_version(), **{name: version(name) for name in _LIBRARIES}}


def _differing(own: dict[str, str], other: dict[str, str]) -> str:
    found = [f"{n} {other.get(n)} (here {own[n]})" for n in own if other.get(n) != own[n]]
    return ", ".join(found)


def require_listening(address: str) -> None:
    """Raise C124 if nothing answers at an address; Ray itself waits for minutes."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise _unreachable(address, "is not HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, f"does not answer ({error.strerror or error})") from error


def _unreachable(address: str, problem: str) -> UsageError:
    remedy = "start it with `ray start --head`, or correct RAY_ADDRESS"
    return UsageError("C124", f"RAY_ADDRESS {address}", problem, remedy)
