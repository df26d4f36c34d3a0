"""A build on this machine and on Ray clusters: the same hash, and what a cluster costs in time.

    python bench/cluster.py --folder /big/disk --pairs 100000
    python bench/cluster.py --folder /big/disk --pairs 100000 1000000 --overhead --rounds 3

The rows of `bench/scale.py`, with near-duplicates as errors, named by a relative path. Nodes are
raylets of their own on this machine (`ray start`), started in another directory. The first form
builds with one worker and two, on one node and two, and while a worker, a raylet, and the first
process are killed in the middle; the last continues on this machine. `--overhead` builds in turn
with two workers here and on a running cluster of two cores, and prints the ratio of each round.
Ray has to be installed: pip install -e '.[ray]'.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from scale import write_pairs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.prefdata.conftest import save_tokenizer
from tests.processes import processes_of
from tests.ray_nodes import QUIET, Nodes, address_of, cluster

CONFIG = """\
inputs: [data/{rows}]
tokenizer: tokenizer
text: chat
out: out
severity: {{PD402: E}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where files are made")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000])
    parser.add_argument("--words", type=int, default=14, help="most words of a text")
    parser.add_argument("--overhead", action="store_true", help="measure time alone")
    parser.add_argument("--rounds", type=int, default=3, help="of --overhead")
    options = parser.parse_args()
    folder = options.folder.resolve()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    save_tokenizer(folder / "tokenizer")
    for number in options.pairs:
        rows = folder / "data" / f"{number}.jsonl"
        write_pairs(rows, number, options.words)
        if options.overhead:
            measure_overhead(folder, rows.name, options.rounds)
        else:
            compare_hashes(folder, rows.name)
        rows.unlink()


def compare_hashes(folder: Path, rows: str) -> None:
    """Print the seconds and the hash of every way to build; end the bench if two differ."""
    print(f"{'way':40} {'seconds':>8}  hash of {rows}")
    hashes = set()

    def show(way: str, done: tuple[float, str]) -> None:
        print(f"{way:40} {done[0]:8.1f}  {done[1][:16]}", flush=True)
        hashes.add(done[1])

    show("this machine, one worker", build(folder, rows, workers=1))
    seconds, first = build(folder, rows, workers=2)
    show("this machine, two workers", (seconds, first))
    with cluster([2]) as nodes:
        show("Ray, one node", build(folder, rows, nodes=nodes))
    with cluster([1, 1]) as nodes:
        show("Ray, two nodes", build(folder, rows, nodes=nodes))
        half = seconds / 2
        show("Ray, a worker killed", build(folder, rows, nodes=nodes, kill=(half, find_worker)))
        show("Ray, a raylet killed", build(folder, rows, nodes=nodes, kill=(half, find_raylet)))
    with cluster([1, 1]) as nodes:
        assert not build(folder, rows, nodes=nodes, kill=(half, find_first))[1]
        show("Ray, its first process killed, then here", build(folder, rows, keep=True))
    if len(hashes) > 1:
        sys.exit("the hashes differ")


def measure_overhead(folder: Path, rows: str, rounds: int) -> None:
    """Print seconds here and on a cluster with as many cores, in turn, and their ratios."""
    ratios = []
    with cluster([2]) as nodes:
        for number in range(rounds):
            here, there = build(folder, rows, workers=2), build(folder, rows, nodes=nodes)
            assert here[1] == there[1], "another hash"
            ratios.append(there[0] / here[0])
            print(f"{rows} {number}: here {here[0]:.1f} s, Ray {there[0]:.1f} s", flush=True)
    print(f"{rows}: Ray / here {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
          f"{max(ratios):.2f})", flush=True)  # fmt: skip


class Kill(threading.Timer):
    """Kill some seconds after its start; `is_done` says whether it found what to kill."""

    def __init__(self, seconds: float, find: Callable[[], int]) -> None:
        super().__init__(seconds, self._strike)
        self._find, self.is_done = find, False

    def _strike(self) -> None:
        os.kill(self._find(), signal.SIGKILL)
        self.is_done = True


def build(
    folder: Path,
    rows: str,
    *,
    workers: int | None = None,
    nodes: Nodes | None = None,
    kill: tuple[float, Callable[[int, Nodes], int]] | None = None,
    keep: bool = False,
) -> tuple[float, str]:
    """Run a build as a command; return its seconds, and its hash ("" if it was killed)."""
    out = folder / "out"
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
    (folder / "build.yaml").write_text(CONFIG.format(rows=rows))
    words = [sys.executable, "-m", "prefdata", "build", "build.yaml"]
    words += ["--workers", str(workers)] if workers else []
    words += ["--engine", "ray"] if nodes else []
    environment = QUIET | ({"RAY_ADDRESS": address_of(nodes)} if nodes else {})
    started = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    struck = Kill(kill[0], lambda: kill[1](process.pid, nodes)) if kill and nodes else None
    if struck:
        struck.start()
    said = process.communicate()[1].decode()
    seconds = time.perf_counter() - started
    if struck and not struck.is_done:
        sys.exit("nothing was killed: the build ended before, or no task ran")
    if process.returncode == -signal.SIGKILL:
        assert not (out / "manifest.json").exists(), "it was killed too late"
        return seconds, ""
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}:\n{said}")
    return seconds, orjson.loads((out / "manifest.json").read_bytes())["hash"]


def find_worker(_: int, nodes: Nodes) -> int:
    """Return a process that runs a task."""
    return next(one for node in nodes for one in processes_of(node.pid, "ray::_run"))


def find_raylet(_: int, nodes: Nodes) -> int:
    """Return the raylet of the last node: without it, the tasks that it runs are lost."""
    return processes_of(nodes[-1].pid, "raylet")[0]


def find_first(number: int, _: Nodes) -> int:
    """Return the first process of the build."""
    return number


if __name__ == "__main__":
    main()
