"""Clusters of several nodes: the bytes of this machine's builds, or one line with a code."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import prefdata
from prefdata.engine.ray import _Expected, _run
from prefdata.errors import UsageError
from tests.prefdata.conftest import chat_rows, write_rows
from tests.ray_nodes import QUIET, Nodes, address_of, cluster

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own start
CONFIG = "{inputs: [rows.jsonl], tokenizer: tok, out: out, severity: {PD402: E}}"
OTHER_MOUNTS = {
    "another directory": 'mount -t tmpfs none "$0" && exec "$@"',
    "a directory to read": 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
}


def run_build(
    folder: Path,
    *words: str,
    nodes: Nodes | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, float]:
    """Run a build of relative paths; return its hash, or what it said, and its seconds."""
    (folder / "build.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "prefdata", "build", "build.yaml"]
    environment = {**QUIET, **({"RAY_ADDRESS": address_of(nodes)} if nodes else {}), **more}
    started = time.monotonic()
    done = subprocess.run(
        [*command, "--replace", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    seconds = time.monotonic() - started
    return (
        done.stderr if done.returncode else prefdata.open(folder / "out").manifest.hash
    ), seconds


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    write_rows(folder / "rows.jsonl", chat_rows(300))
    (folder / "tok").symlink_to(tiny)
    return folder


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Nodes]:
    with cluster([1, 1]) as nodes:
        yield nodes


def test_two_nodes_write_the_bytes_of_this_machine(shared: Path, two_nodes: Nodes) -> None:
    here, _ = run_build(shared)
    there, _ = run_build(shared, "--engine", "ray", nodes=two_nodes)

    assert len(here) == 64
    assert there == here


def test_workers_of_a_running_cluster_are_its_own(shared: Path, two_nodes: Nodes) -> None:
    said, seconds = run_build(shared, "--engine", "ray", "--workers", "2", nodes=two_nodes)

    assert "workers: 2 has no effect on the cluster at" in said
    assert "C125" in said
    assert seconds < 30


@pytest.mark.parametrize("mount", OTHER_MOUNTS)
def test_a_node_that_mounts_something_else_is_named(shared: Path, mount: str) -> None:
    """The directory is mounted otherwise for the second node alone."""
    prefix = ["unshare", "--mount", "sh", "-c", OTHER_MOUNTS[mount], str(shared)]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    with cluster([1, 1], prefix=prefix) as nodes:
        said, seconds = run_build(shared, "--engine", "ray", nodes=nodes)

    assert "Traceback" not in said
    assert "C127" in said
    assert "cannot be used there" in said
    assert seconds < 30


def test_a_cluster_of_this_machine_is_found_without_its_address(shared: Path) -> None:
    here, _ = run_build(shared)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = {"RAY_TMPDIR": folder}
        with cluster([1], environment=place):
            there, _ = run_build(shared, "--engine", "ray", more=place)
            said, _ = run_build(shared, "--engine", "ray", "--workers", "2", more=place)

    assert len(here) == 64
    assert there == here
    assert "workers: 2 has no effect on a running cluster" in said


def test_a_node_that_joins_later_is_checked_before_its_first_task(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"polars .* \(here 0\).*C126"):
        _run(abs, -1, _Expected(str(tmp_path), {}, {"polars": "0"}))


def test_ray_client_without_its_package_is_one_line(shared: Path, two_nodes: Nodes) -> None:
    port = address_of(two_nodes).rpartition(":")[2]
    code = "import sys; sys.modules['grpc'] = None; from prefdata.cli import main; main()"
    words = ["build", "rows.jsonl", "--tokenizer", "tok", "-o", "other", "--engine", "ray"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=shared,
        env=QUIET | {"RAY_ADDRESS": f"ray://127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "Traceback" not in done.stderr
    assert "C124" in done.stderr
    assert "pip install 'ray[client]'" in done.stderr


def test_a_cluster_without_a_core_grows_as_tasks_wait(shared: Path) -> None:
    here, _ = run_build(shared)
    with cluster([0], most_grown=2) as nodes:
        there, _ = run_build(shared, "--engine", "ray", nodes=nodes)

    assert len(here) == 64
    assert there == here


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_cluster_asks_for_a_token(shared: Path, tmp_path: Path, mode: str) -> None:
    """Ray leaves a token in a home directory, and its next `ray start` there asks for it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    home = {"HOME": str(tmp_path)}
    with cluster([1], environment=home | {"RAY_AUTH_MODE": "token"}) as nodes:
        more = home | {"RAY_AUTH_MODE": mode}
        said, seconds = run_build(shared, "--engine", "ray", nodes=nodes, more=more)

    assert "Traceback" not in said
    assert ("C124" in said) == (mode == "disabled")
    assert ("RAY_AUTH_MODE=token" in said) == (mode == "disabled")
    assert (len(said) == 64) == (mode == "token")
    assert seconds < 30
