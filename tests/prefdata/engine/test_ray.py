"""A build on Ray is byte-identical to a build on this machine, and what Ray lacks is one line."""

import json
import socket
import tempfile
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.engine import RayWorkers
from prefdata.errors import PrefdataError, UsageError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own start


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def test_an_engine_changes_no_byte_and_errors_keep_their_codes(
    rows_file: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(rows_file.read_bytes())

    def build(name: str, inputs: str, engine: str) -> str:
        config = BuildConfig(
            inputs=[inputs],
            tokenizer=str(tiny),
            out=Path(name),
            engine=engine,
            workers=2,
            severity={"PD402": "E"},
            evaluations=["held_out.txt"],
        )
        return prefdata.build(config).manifest.hash

    (tmp_path / "held_out.txt").write_text("a text of an evaluation that no row has in it\n")
    assert build("ray", "rows.jsonl", "ray") == build("local", "rows.jsonl", "local")
    assert not ray.is_initialized()
    (tmp_path / "bad.jsonl").write_text(json.dumps({"what": 1}) + "\n")
    with pytest.raises(PrefdataError, match="PD102"):
        build("bad", "bad.jsonl", "ray")


def test_workers_of_a_cluster_that_runs_are_its_own() -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(UsageError, match=r"workers: 3 has no effect .*C125"), RayWorkers(3):
            pass
        assert ray.is_initialized()
        with RayWorkers(None) as workers:
            assert list(workers.map(abs, [-3, 2])) == [3, 2]
    finally:
        ray.shutdown()


@pytest.mark.parametrize("address", ["nowhere", "nowhere.invalid:1", "ray://127.0.0.1:{}"])
def test_an_address_without_a_cluster_is_one_line_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", address.format(port))
    started = time.monotonic()

    with pytest.raises(UsageError, match="C124"), RayWorkers(None):
        pass

    assert time.monotonic() - started < 20


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_is_not_ray_is_one_line_at_once(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would wait for it for minutes, as for its own dashboard's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{server.server_port}")
        started = time.monotonic()
        with pytest.raises(UsageError, match="answers, but is not a Ray cluster"), RayWorkers(None):
            pass
        server.shutdown()

    assert time.monotonic() - started < 20


def test_a_node_that_does_not_see_a_file_is_named(tmp_path: Path) -> None:
    seen, gone = tmp_path / "seen.jsonl", tmp_path / "gone.jsonl"
    seen.touch()
    with RayWorkers(1) as workers:
        workers.prepare(tmp_path / "parts", {seen: 0})
        assert [one.name for one in (tmp_path / "parts").iterdir()] == ["probe-00000.arrow"]
        with pytest.raises(UsageError, match=r"gone.jsonl cannot be used there .*C127"):
            workers.prepare(tmp_path / "parts", {seen: 0, gone: 1})


def test_a_killed_cluster_of_this_machine_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ray start` leaves its address in a file, at which Ray waits for minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # paths of sockets are short
        monkeypatch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        Path(folder, "ray", "ray_current_cluster").write_text(address)
        started = time.monotonic()

        with RayWorkers(1) as workers:
            assert list(workers.map(abs, [-3])) == [3]

    assert time.monotonic() - started < 60
