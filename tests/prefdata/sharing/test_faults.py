"""Faults of the Hub at every request: one coded line, no token, no mixture of sets."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefdata.sharing.pull import find_set, pull
from prefdata.sharing.push import push
from prefdata.store.reader import Build
from tests.effort import times
from tests.hub import TOKEN, FakeHub
from tests.prefdata.sharing.conftest import make_build
from tests.prefdata.sharing.test_share import NAME, REPO, digests, run, shared_digests

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

DOWNLOAD_TIMEOUT = "huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT"
PUSH_FAULTS = {
    "401": ({"whoami": 401}, "E200"),
    "403": ({"/commit/": 403}, "E202"),
    "404": ({"/commit/": 404}, "E204"),
    "412": ({"/commit/": 412}, "E203"),
    "429": ({"/commit/": 429}, "E204"),
    "500": ({"/commit/": 500}, "E204"),
    "500 of an upload": ({"PUT /objects/": 500}, "E204"),
    "no answer": ({"/preupload/": "hang"}, "E204"),
    "a flipped bit": ({"PUT /objects/": "flip"}, "E209"),
}


@pytest.mark.parametrize("fault", PUSH_FAULTS)
def test_a_push_that_fails_is_one_coded_line_and_the_old_head_stays(
    fault: str, build: Build, hub: FakeHub, tiny: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    head, files = push(make_build(tmp_path, tiny, "old", shard_rows=99).path, NAME), {}
    files = hub.head(REPO)[1]
    hub.faults, code = PUSH_FAULTS[fault]
    if "hang" in hub.faults.values():
        monkeypatch.setattr(DOWNLOAD_TIMEOUT, 0.5)
    asked = len(hub.seen)

    done = run("push", build.path, NAME)

    last = done.output.strip().splitlines()[-1]
    assert f"[{code}]" in last
    assert done.exit_code == (2 if code in ("E200", "E201", "E202") else 1)
    if code != "E209":
        assert hub.head(REPO) == (head.commit, files)
    for part in hub.faults:
        per_path: dict[str, int] = {}
        for line in hub.seen[asked:]:
            per_path[line] = per_path.get(line, 0) + (part in line)
        assert max(per_path.values()) <= 6, "a try and five more"
    hub.faults = {}
    monkeypatch.setattr(DOWNLOAD_TIMEOUT, 10)
    assert run("push", build.path, NAME).exit_code == 0
    assert pull(find_set(NAME), tmp_path / "back").manifest.hash == build.manifest.hash


PULL_FAULTS = {
    "401": ({"HEAD /datasets/": 401}, ("E200", "E201")),
    "403": ({"HEAD /datasets/": 403}, ("E202",)),
    "404": ({"HEAD /datasets/": 404}, ("E201", "E204", "E211")),
    "429": ({"GET /datasets/": 429}, ("E204", "E211")),
    "500": ({"GET /datasets/": 500}, ("E204", "E211")),
    "no answer": ({"GET /datasets/": "hang"}, ("E204", "E211")),
    "a body that ends early": ({"resolve/": "cut"}, ("E204", "E211")),
    "a flipped bit of a large file": ({"00000-of-00003.parquet": "flip"}, ("E209",)),
    "a flipped bit of the manifest": ({"manifest.json": "flip"}, ("E209",)),
    "a flipped bit of the record": ({"prefdata.json": "flip"}, ("E210",)),
}


@pytest.mark.parametrize("fault", PULL_FAULTS)
def test_a_pull_that_fails_is_one_coded_line_and_the_next_one_is_whole(
    fault: str, build: Build, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    push(build.path, NAME)
    hub.faults, codes = PULL_FAULTS[fault]
    if "hang" in hub.faults.values():
        monkeypatch.setattr(DOWNLOAD_TIMEOUT, 0.5)

    done = run("pull", NAME, "-o", tmp_path / "back" / "out")

    assert done.exit_code in (1, 2)
    assert any(f"[{code}]" in done.output.strip().splitlines()[-1] for code in codes), done.output
    assert not (tmp_path / "back" / "out" / "manifest.json").exists()
    hub.faults = {}
    monkeypatch.setattr(DOWNLOAD_TIMEOUT, 10)
    again = run("pull", NAME, "-o", tmp_path / "back" / "out")
    assert again.exit_code == 0, again.output
    assert digests(tmp_path / "back" / "out") == shared_digests(build)


def kill_at(number: int, words: list[str], hub: FakeHub, environment: dict[str, str]) -> bool:
    """Run a command and kill it at its n-th request; return whether it was killed."""
    asked = len(hub.seen)
    process = subprocess.Popen(
        [sys.executable, "-m", "prefdata", *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip

    def strike(seen: int, _line: str) -> None:
        if seen - asked == number:
            os.kill(process.pid, signal.SIGKILL)

    hub.on_request = strike
    output, _ = process.communicate()
    hub.on_request = lambda _number, _line: None
    assert TOKEN.encode() not in output
    return process.returncode != 0


def points(total: int) -> list[int]:
    """Return numbers of requests, evenly spread: all of them under `make stress`."""
    most = times(3, total)
    return sorted({1 + round(n * (total - 1) / max(most - 1, 1)) for n in range(most)})


def test_a_push_killed_at_any_request_leaves_the_old_set_or_the_new_one(
    build: Build, hub: FakeHub, tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    old = make_build(tmp_path, tiny, "old", shard_rows=99)
    push(old.path, NAME)
    first = hub.head(REPO)[0]
    asked = len(hub.seen)
    push(build.path, NAME)
    total = len(hub.seen) - asked
    allowed = [hub.files_at(REPO, first), hub.head(REPO)[1]]

    for number in points(total):
        hub.branches[REPO]["main"] = first
        hub.objects.clear()
        hub.tags.clear()
        was_killed = kill_at(number, ["push", str(build.path), NAME], hub, environment)
        held = hub.head(REPO)[1]
        assert held in allowed, number
        sent = {line for line in hub.seen if line.startswith("PUT")}
        before = len(hub.objects)
        assert run("push", build.path, NAME).exit_code == 0
        assert hub.head(REPO)[1] == allowed[1], (number, was_killed, before, len(sent))
        assert list(hub.tags[REPO]) == [f"build-{build.manifest.hash[:16]}"]


def test_what_arrived_before_a_kill_is_not_sent_again(
    build: Build, hub: FakeHub, environment: dict[str, str]
) -> None:
    hub.create(REPO)
    asked = len(hub.seen)
    assert run("push", build.path, NAME, "--create-pr").exit_code == 0
    total = next(
        number
        for number, line in enumerate(hub.seen[asked:], start=1)
        if line.startswith("POST") and "/commit/" in line
    )
    hub.objects.clear()
    kill_at(total, ["push", str(build.path), NAME], hub, environment)
    arrived = {f"PUT /objects/{digest}" for digest in hub.objects}
    asked = len(hub.seen)

    assert run("push", build.path, NAME).exit_code == 0
    assert len(arrived) > 10
    assert not arrived & set(hub.seen[asked:])


def test_a_pull_killed_at_any_request_is_resumed_and_no_file_comes_twice(
    build: Build, hub: FakeHub, tmp_path: Path, environment: dict[str, str]
) -> None:
    push(build.path, NAME)
    asked = len(hub.seen)
    pull(find_set(NAME), tmp_path / "whole" / "out")
    total = len(hub.seen) - asked
    wanted = digests(tmp_path / "whole" / "out")

    for number in points(total):
        cache = {"HF_HUB_CACHE": str(tmp_path / f"cache-{number}")}
        out = tmp_path / f"back-{number}" / "out"
        words = ["pull", NAME, "-o", str(out)]
        kill_at(number, words, hub, environment | cache)
        assert not (out / "manifest.json").exists()
        blobs = {
            path.resolve().stat().st_ino: path.name
            for path in (tmp_path / f"cache-{number}").rglob("snapshots/*/**/*")
            if path.is_file()
        }
        asked = len(hub.seen)
        done = subprocess.run(
            [sys.executable, "-m", "prefdata", *words],
            env=environment | cache, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        assert digests(out) == wanted
        fetched = [
            line for line in hub.seen[asked:] if line.startswith("GET") and "resolve" in line
        ]
        assert len(fetched) <= len(wanted) + 12 - len(blobs), number
