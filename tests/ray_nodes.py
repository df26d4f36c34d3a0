"""Ray clusters of several nodes on this machine, by `ray start`, as its users start them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from tests.processes import processes_naming, processes_of

Nodes = list["subprocess.Popen[bytes]"]
QUIET = os.environ | {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "disabled",  # whatever token an earlier cluster of this user has left
    "RAY_USAGE_STATS_ENABLED": "0",
}
_FAKE_PORT, _FAKE_HEAD = 6379, "ray.head.default"  # the only ones that `fake_multinode` knows
_FAKE = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
_COUNT = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50)
print(sum(node["Alive"] for node in ray.nodes()))
"""


@contextmanager
def cluster(
    cores: Sequence[int],
    *,
    prefix: Sequence[str] = (),
    most_grown: int = 0,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Nodes]:
    """Start nodes with these numbers of cores, the first as their head; end them after use.

    They run in another directory than this process. `prefix` are words before the command of the
    last one, such as `unshare --mount`; `environment` is added to that of all. An autoscaler adds
    up to `most_grown` nodes of one core.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", _FAKE_PORT if most_grown else 0))
        port = free.getsockname()[1]
    elsewhere = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))  # paths of sockets are short
    own_environment = {
        **QUIET,
        "RAY_TMPDIR": str(elsewhere),
        **(_FAKE if most_grown else {}),
        **environment,
    }
    nodes: Nodes = []
    try:
        for number, own in enumerate(cores):
            where = ["--head", f"--port={port}", "--include-dashboard=false"]
            if most_grown:
                config = elsewhere / "autoscaler.json"
                config.write_text(json.dumps(_config(most_grown)))
                where.append(f"--autoscaling-config={config}")
            words = [*_START, *(where if number == 0 else [f"--address=127.0.0.1:{port}"])]
            before = prefix if number == len(cores) - 1 else ()
            with (elsewhere / f"node-{number}.log").open("wb") as log:
                nodes.append(
                    subprocess.Popen(
                        [*before, *words, f"--num-cpus={own}", "--node-ip-address=127.0.0.1"],
                        cwd=elsewhere,
                        env=own_environment,
                        stdout=log,
                        stderr=log,
                    )
                )
            _wait_for(f"127.0.0.1:{port}", number + 1, own_environment)
        yield nodes
    finally:
        ours = [one for node in nodes for one in processes_of(node.pid)]
        for number in ours + processes_naming(str(elsewhere)):
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for node in nodes:
            node.wait()
        shutil.rmtree(elsewhere, ignore_errors=True)


def _config(most: int) -> dict[str, object]:
    """Return the settings of an autoscaler whose machines are processes of this one."""
    types: dict[str, object] = {
        _FAKE_HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1},
            "node_config": {},
            "min_workers": 0,
            "max_workers": most,
        },
    }
    provider = {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    empty: dict[str, object] = {
        name: []
        for name in (
            *("initialization_commands", "setup_commands", "head_setup_commands"),
            *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
            *("cluster_synced_files", "rsync_exclude", "rsync_filter"),
        )
    }
    return empty | {
        "cluster_name": "growing",
        "provider": provider,
        "available_node_types": types,
        "head_node_type": _FAKE_HEAD,
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
    }


def address_of(nodes: Nodes) -> str:
    """Return the address of the head, from the arguments that it was started with."""
    words = [str(word) for word in nodes[0].args]  # type: ignore[union-attr]
    port = next(word.partition("=")[2] for word in words if word.startswith("--port="))
    return f"127.0.0.1:{port}"


def _wait_for(address: str, number: int, environment: Mapping[str, str]) -> None:
    for _ in range(60):
        words = [sys.executable, "-c", _COUNT, address]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.stdout.strip().endswith(str(number)):
            return
        time.sleep(1)
    raise RuntimeError(f"the cluster at {address} has no {number} nodes: {done.stderr}")
