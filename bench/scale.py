"""Memory and speed of a build as its rows grow, on made pairs of a few words.

    python bench/scale.py --folder /big/disk --sizes 1000000 3000000 10000000

Each size is written, built by `prefdata build` with the tiny tokenizer of the tests, and removed.
Of 100 prompts two have several pairs, three are near-duplicates of one before, and one is a copy,
so every stage has work. Memory is the peak of the largest process: RSS, and the part of it that
is not pages of files (anonymous). Disk is the peak of what the output directory takes, looked at
once a second; written is what all processes gave to write(). `--engine ray` builds on Ray. The
largest size has to need no more memory than the middle one, and at least 0.8 of the rows a second
of the first.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.prefdata.conftest import save_tokenizer
from tests.processes import processes_of

WORDS = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("a", "en", "ir", "ol", "u", "ast", "eng")]
LIMIT_GIB = 2.0


class Figures(NamedTuple):
    """Time of a build, the peaks of its largest process in MiB, and disk in GB."""

    seconds: float
    rss: float
    anonymous: float
    disk: float
    written: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where files are made")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--words", type=int, default=14, help="most words of a text")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = options.folder / "tokenizer"
    save_tokenizer(tokenizer)
    print(
        "| pairs | bytes of a pair | seconds | rows/s | largest process, MiB | of it anonymous"
        " | most disk, GB | written, GB | hash |\n|---|---|---|---|---|---|---|---|---|"
    )
    for size in options.sizes:
        data, out = options.folder / f"{size}.jsonl", options.folder / f"out-{size}"
        write_pairs(data, size, options.words)
        shutil.rmtree(out, ignore_errors=True)
        words = [str(data), "--tokenizer", str(tokenizer), "--text", "chat", "-o", str(out)]
        if options.engine == "local":
            words += ["--workers", str(options.workers)]
        command = [sys.executable, "-m", "prefdata", "build", *words, "--engine", options.engine]
        found = watch(command, out)
        manifest = orjson.loads((out / "manifest.json").read_bytes())
        rate = size / found.seconds
        print(
            f"| {size:,} | {data.stat().st_size / size:.0f} | {found.seconds:.0f} | {rate:,.0f}"
            f" | {found.rss:.0f} | {found.anonymous:.0f} | {found.disk:.1f} | {found.written:.1f}"
            f" | {manifest['hash'][:16]} |",
            flush=True,
        )
        if found.rss > LIMIT_GIB * 1024:
            print(f"**short**: the largest process needs more than {LIMIT_GIB} GiB")
        shutil.rmtree(out)
        data.unlink()


def write_pairs(path: Path, number: int, most: int = 14) -> None:
    """Write pairs of texts of up to `most` words, the same ones each time."""
    with path.open("wb") as file:
        for row in pairs(number, most):
            file.write(orjson.dumps(row) + b"\n")


def pairs(number: int, most: int) -> Iterator[dict[str, str]]:
    draw = random.Random(0)
    before: deque[str] = deque([text(draw, most)], maxlen=10_000)
    row: dict[str, str] = {}
    for place in range(number):
        kind = place % 100
        if kind != 99:  # the last of a hundred is a copy
            prompt = text(draw, most)
            if kind in (10, 11, 30, 31):
                prompt = before[-1]
            elif kind in (50, 60, 70):
                prompt = f"{before[draw.randrange(len(before))]} {draw.choice(WORDS)}"
            before.append(prompt)
            chosen, rejected = text(draw, most - 2), text(draw, most - 5)
            row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        yield row


def text(draw: random.Random, most: int) -> str:
    """Return words, of which any five in a row are hardly ever in two texts."""
    return " ".join(draw.choices(WORDS, k=draw.randint(6, most)))


def watch(command: list[str], out: Path) -> Figures:
    """Run a command that writes `out`; return what it took."""
    started, written = time.perf_counter(), written_bytes()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks = Peaks(process.pid, out)
    code = process.wait()
    seconds = time.perf_counter() - started
    peaks.stop()
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}")
    rss, anonymous = (peaks.memory[name] / 1024 for name in ("VmRSS", "RssAnon"))
    return Figures(seconds, rss, anonymous, peaks.disk / 1e9, (written_bytes() - written) / 1e9)


class Peaks:
    """Largest process of a command (KiB), ten times a second, and its output, once a second."""

    def __init__(self, number: int, out: Path) -> None:
        self.memory, self.disk = {"VmRSS": 0, "RssAnon": 0}, 0
        self._number, self._out, self._ended = number, out, threading.Event()
        looks = ((0.1, self._look_at_processes), (1.0, self._look_at_output))
        self._threads = [threading.Thread(target=self._repeat, args=look) for look in looks]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, seconds: float, look: Callable[[], None]) -> None:
        while not self._ended.wait(seconds):
            look()

    def _look_at_processes(self) -> None:
        for number in processes_of(self._number):
            sizes = memory_of(number)
            self.memory = {
                name: max(size, sizes.get(name, 0)) for name, size in self.memory.items()
            }

    def _look_at_output(self) -> None:
        found = 0
        for folder, _, names in os.walk(self._out):
            for name in names:
                with suppress(FileNotFoundError):  # one that was removed since
                    found += Path(folder, name).lstat().st_blocks * 512
        self.disk = max(self.disk, found)


def written_bytes() -> int:
    """Return what this process and its children that have ended gave to write()."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def memory_of(number: int) -> dict[str, int]:
    """Return the memory of a process in KiB; {} if it has ended."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines if line.endswith("kB"))
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


if __name__ == "__main__":
    main()
