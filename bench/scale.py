"""Memory and speed of a build as its rows grow, on made pairs of a few words.

    python bench/scale.py --folder /big/disk --sizes 1000000 3000000 10000000

Each size is written, built by `prefdata build` with the tiny tokenizer of the tests, and removed.
Of 100 prompts two have several pairs, three are near-duplicates of one before, and one is a copy,
so every stage has work. Memory is the peak of the largest process: RSS, and the part of it that
is not pages of files (anonymous). `--engine ray` builds on Ray. The largest size has to need no
more memory than the middle one, and at least 0.8 of the rows a second of the first.
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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.prefdata.conftest import save_tokenizer
from tests.processes import processes_of

WORDS = [f"{a}{b}" for a in "bdfgklmnprstvz" for b in ("a", "en", "ir", "ol", "u", "ast", "eng")]
LIMIT_GIB = 2.0


class Figures(NamedTuple):
    """Time of a build, and the peaks of its largest process in MiB."""

    seconds: float
    rss: float
    anonymous: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where files are made")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = options.folder / "tokenizer"
    save_tokenizer(tokenizer)
    print("| pairs | seconds | rows/s | largest process, MiB | of it anonymous | hash |")
    print("|---|---|---|---|---|---|")
    for size in options.sizes:
        data, out = options.folder / f"{size}.jsonl", options.folder / f"out-{size}"
        write_pairs(data, size)
        shutil.rmtree(out, ignore_errors=True)
        words = [str(data), "--tokenizer", str(tokenizer), "--text", "chat", "-o", str(out)]
        if options.engine == "local":
            words += ["--workers", str(options.workers)]
        command = [sys.executable, "-m", "prefdata", "build", *words, "--engine", options.engine]
        found = watch(command)
        manifest = orjson.loads((out / "manifest.json").read_bytes())
        rate = size / found.seconds
        sizes = f"{found.rss:.0f} | {found.anonymous:.0f}"
        line = f"| {size:,} | {found.seconds:.0f} | {rate:,.0f} | {sizes}"
        print(f"{line} | {manifest['hash'][:16]} |", flush=True)
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


def watch(command: list[str]) -> Figures:
    """Run a command, and look at the memory of its processes ten times a second."""
    started, most = time.perf_counter(), {"VmRSS": 0, "RssAnon": 0}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for number in processes_of(process.pid):
                sizes = memory_of(number)
                for name in most:
                    most[name] = max(most[name], sizes.get(name, 0))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return Figures(time.perf_counter() - started, most["VmRSS"] / 1024, most["RssAnon"] / 1024)


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
