"""Stages on a Ray cluster, whose machines share the directories of inputs and output.

The functions are the same as locally, and the results come back in the order of their items, so
the bytes of a build do not depend on the engine. Before the first stage every node says which
versions it has, and reads and writes a file in the output directory; a node that joins later says
it before its first task.
"""

import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prefdata.engine.local import Done, Item, Result, run_there
from prefdata.errors import PrefdataError, UsageError

_WAITING = 2  # tasks that wait for each core, so that no core is idle, and a cluster that can grow
_ANSWER_SECONDS = 120  # of a node, before the first stage
_CONNECT_SECONDS = 5
_FRAME_HEAD, _SETTINGS = 9, 4  # bytes before a frame of HTTP/2, and the type that comes first
_THREADS = dict.fromkeys(("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1")
_LIBRARIES = ("prefdata-dpo", "numpy", "orjson", "polars", "pyarrow", "tokenizers")
_PLACE = "engine: ray"
_PROBE = "probe-00000.arrow"
"""File that stays in the directory of a build until its end."""


class RayWorkers:
    """A Ray cluster: the running one (RAY_ADDRESS, `ray start`), or one started here."""

    def __init__(self, number: int | None) -> None:
        self._number = number
        self._ray: Any = None
        self._is_ours = False
        self._expected: Any = None

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
        (folder / _PROBE).write_text(folder.as_posix())
        named = {str(path): size for path, size in sizes.items()}
        self._expected = expected = self._ray.put(_Expected(str(folder), named, _versions()))
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in self._nodes()}
        asked = {self._task(_answer, node).remote(expected, node): node for node in nodes}
        _, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_SECONDS)
        for one in late:
            problem = f"node {nodes[asked[one]]} did not answer in {_ANSWER_SECONDS} s"
            raise UsageError("C124", _PLACE, problem, "check `ray status`, and run again")
        for one, node in asked.items():
            self._result(one)
            if not (folder / _name_of(node)).exists():
                raise _unseen(nodes[node], f"what it writes to {folder} is not seen here")
            (folder / _name_of(node)).unlink()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Done[Result]]
    ) -> Iterator[Result]:
        """Yield the results in the order of the items; few items wait at a time.

        Those that wait for a core are the demand that an autoscaler sees.
        """
        task = self._task(_run)
        most, waiting = 1, deque[Any]()
        for item in items:
            waiting.append(
                item if isinstance(item, Done) else task.remote(function, item, self._expected)
            )
            if len(waiting) >= most:
                most = _WAITING * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
            if len(waiting) >= most:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _connect(self, address: str) -> None:
        """Connect to the cluster at an address; `auto` starts one if none runs here."""
        if address in ("", "auto", "local"):
            if address != "local" and _runs_here():
                try:
                    self._init("auto")
                except ConnectionError:
                    pass
                else:
                    self._require_no_number("a running cluster")
                    return
            self._init("local", num_cpus=self._number, include_dashboard=False)
            return
        self._require_no_number(f"the cluster at {address}")
        if address.startswith("ray://") and find_spec("grpc") is None:
            remedy = "pip install 'ray[client]', or name its address without ray://"
            problem = "the client that ray:// needs is not installed"
            raise UsageError("C124", f"RAY_ADDRESS {address}", problem, remedy)
        require_listening(address)
        try:
            self._init(address)
        except ConnectionError as error:
            raise _refused(address, error) from error

    def _init(self, address: str, **options: Any) -> None:
        try:
            self._ray.init(address=address, log_to_driver=False, **options)
        except (RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise _refused(address, error) from error

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


class _Expected(NamedTuple):
    """What a node has to see and to have."""

    folder: str
    """Directory that all nodes write in."""
    sizes: dict[str, int]
    """Bytes of the files that they read."""
    versions: dict[str, str]


_CHECKED: set[str] = set()
"""Directories for which this process of a node was checked."""


def _run(function: Callable[[Item], Result], item: Item, expected: _Expected | None) -> Result:
    """Process an item on a node, which may have joined after the first stage began."""
    if expected is not None and expected.folder not in _CHECKED:
        _check(expected)
        _CHECKED.add(expected.folder)
    return run_there(function, item)


def _answer(expected: _Expected, node: str) -> None:
    """Check the node that runs this, and write a file of its own in the directory."""
    _check(expected, writes=_name_of(node))


def _check(expected: _Expected, *, writes: str = "") -> None:
    """Raise C126 if this node has other versions, C127 if it sees other files or cannot write."""
    from ray.util import get_node_ip_address

    address, versions = get_node_ip_address(), _versions()
    if versions != expected.versions:
        problem = f"node {address} has {_differing(expected.versions, versions)}"
        raise UsageError("C126", _PLACE, problem, "install the same versions on all nodes")
    folder = Path(expected.folder)
    try:
        if (folder / _PROBE).read_text() != folder.as_posix():
            raise _unseen(address, f"{folder} is another directory there")
        for name, size in expected.sizes.items():
            if Path(name).stat().st_size != size:
                raise _unseen(address, f"{name} is another file there")
        if writes:
            (folder / writes).touch()
    except OSError as error:
        fault = f"{error.filename} cannot be used there ({error.strerror})"
        raise _unseen(address, fault) from error


def _unseen(address: str, fault: str) -> UsageError:
    remedy = "name paths on a file system that all nodes mount at the same place"
    return UsageError("C127", _PLACE, f"node {address}: {fault}", remedy)


def _name_of(node: str) -> str:
    return f"probe-00000-{node[:16]}.arrow"


def _versions() -> dict[str, str]:
    return {"Python": python_version(), **{name: version(name) for name in _LIBRARIES}}


def _differing(own: dict[str, str], other: dict[str, str]) -> str:
    found = [f"{n} {other.get(n)} (here {own[n]})" for n in own if other.get(n) != own[n]]
    return ", ".join(found)


def _runs_here() -> bool:
    """Return whether a cluster that `ray start` started on this machine still answers.

    Its address stays in a file when it is killed, and some of its processes may live on. Ray takes
    either for a cluster, and waits for it for minutes.
    """
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        require_listening(Path(folder, "ray", "ray_current_cluster").read_text().strip())
    except (UsageError, OSError):
        return False
    return True


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
        with socket.create_connection((host, port), timeout=_CONNECT_SECONDS) as server:
            is_grpc = "RAY_USE_TLS" in os.environ or _speaks_http2(server)
    except OSError as error:
        raise _unreachable(address, f"does not answer ({error.strerror or error})") from error
    if not is_grpc:
        raise _unreachable(address, "answers, but is not a Ray cluster")


def _speaks_http2(server: socket.socket) -> bool:
    """Return whether a server answers as gRPC does: by a frame of settings (RFC 9113, 3.4).

    Ray itself waits for minutes for one that speaks something else.
    """
    server.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    head = b""
    while len(head) < _FRAME_HEAD and (more := server.recv(_FRAME_HEAD - len(head))):
        head += more
    return len(head) == _FRAME_HEAD and head[3] == _SETTINGS


def _refused(address: str, error: Exception) -> UsageError:
    """Return the error of a cluster that answers and refuses, as one that asks for a token does.

    Ray sends a token to an address that it was given only in this mode.
    """
    said = " ".join(str(error).split())[:200]
    remedy = (
        "set RAY_AUTH_MODE=token if the cluster asks for a token (docs/cluster.md), or restart it"
    )
    problem = f"cannot be connected to ({said})"
    return UsageError("C124", f"RAY_ADDRESS {address}", problem, remedy)


def _unreachable(address: str, problem: str) -> UsageError:
    remedy = "start it with `ray start --head`, or correct RAY_ADDRESS"
    return UsageError("C124", f"RAY_ADDRESS {address}", problem, remedy)
