"""Speed and memory of a build as the number of pairs grows.

    python bench/build_scale.py --data hh.jsonl.gz --tokenizer .models/SmolLM2-135M-Instruct

Real pairs are grown to each size: copy k of a pair has a share of its words replaced by other
words of the same file, by a generator seeded with (pair, k), so that no two prompts are equal.
`prefdata validate` and `prefdata build` then run on the file as commands. The baseline is the work
that every build needs: rendering each dialogue and `encode_batch_fast`, on as many processes as
the build uses. Memory is the peak over time of the processes' total, shared pages counted once
(PSS), and the largest resident set of one process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.processes import processes_of

SHARE = 0.3  # of the words that an edit replaces
SLICE = 2_000


class Figures(NamedTuple):
    """Time and peak memory of one command."""

    seconds: float
    pss_mb: float
    rss_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a preference file that prefdata reads")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=Path, help="directory for the grown files, kept at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        pairs = read_pairs(options.data, options.tokenizer, Path(temporary))
        print(f"{len(pairs)} pairs of {options.data}; {options.workers} processes")
        for size in options.sizes:
            measure(grow(pairs, size, folder / f"{size}.jsonl"), size, Path(temporary), options)


def measure(file: Path, size: int, folder: Path, options: argparse.Namespace) -> None:
    """Run both commands and the baseline on one file, and print their figures."""
    command = [sys.executable, "-m", "prefdata"]
    out = folder / f"out-{size}"
    ways = {
        "validate": [*command, "validate", str(file)],
        "build": [*command, "build", str(file), "--tokenizer", options.tokenizer, "-o", str(out)],
    }
    print(f"\n{size} pairs, {file.stat().st_size / 1e6:.0f} MB")
    took = {}
    for name, words in ways.items():
        found = watch([*words, "--workers", str(options.workers)])
        took[name] = found.seconds
        memory = f"PSS {found.pss_mb:5.0f} MB, largest RSS {found.rss_mb:5.0f} MB"
        rate = size / found.seconds
        print(f"{name:10} {found.seconds:8.1f} s {rate:9.0f} pairs/s   {memory}", flush=True)
    seconds = encode_alone(file, options.tokenizer, options.workers)
    print(f"{'encoding':10} {seconds:8.1f} s {size / seconds:9.0f} pairs/s")
    print(f"build / encoding: {took['build'] / seconds:.2f}", flush=True)


def read_pairs(data: str, tokenizer: str, folder: Path) -> list[dict[str, Any]]:
    """Return the pairs of a real file as messages of role and content."""
    import prefdata
    from prefdata.config import BuildConfig

    config = BuildConfig(inputs=[data], tokenizer=tokenizer, out=folder / "real", test_fraction=0.0)
    parts = ("prompt", "chosen", "rejected")
    return [
        {part: [{"role": m["role"], "content": m["content"]} for m in row[part]] for part in parts}
        for row in prefdata.build(config).text("train").to_pylist()
    ]


def grow(pairs: list[dict[str, Any]], size: int, path: Path) -> Path:
    """Write a file of `size` pairs, unless it exists; return its path."""
    if path.exists():
        return path
    vocabulary = sorted(
        {word for row in pairs for message in row["prompt"] for word in message["content"].split()}
    )
    with path.open("w") as out:
        for number in range(size):
            copy, place = divmod(number, len(pairs))
            row = pairs[place]
            if copy:
                chance = random.Random(number)
                row = {part: list(edit(row[part], vocabulary, chance)) for part in row}
            out.write(json.dumps(row) + "\n")
    return path


def edit(
    messages: list[dict[str, str]], vocabulary: list[str], chance: random.Random
) -> Iterator[dict[str, str]]:
    for message in messages:
        words = message["content"].split(" ")
        for _ in range(1 + int(SHARE * len(words))):
            words[chance.randrange(len(words))] = chance.choice(vocabulary)
        yield {**message, "content": " ".join(words)}


def watch(command: list[str]) -> Figures:
    """Run a command and measure its processes twice a second; each sample takes milliseconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    most = {"Pss": 0.0, "Rss": 0.0}
    while process.poll() is None:
        together, largest = 0, 0
        for number in processes_of(process.pid):
            sizes = memory_of(number)
            together += sizes.get("Pss", 0)
            largest = max(largest, sizes.get("Rss", 0))
        most = {"Pss": max(most["Pss"], together), "Rss": max(most["Rss"], largest)}
        time.sleep(0.5)
    seconds = time.perf_counter() - started
    if process.returncode not in (0, 1):  # 1: findings
        assert process.stderr is not None
        sys.exit(f"{' '.join(command)} failed:\n{process.stderr.read().decode()[-2000:]}")
    return Figures(seconds, most["Pss"] / 1024, most["Rss"] / 1024)


def memory_of(number: int) -> dict[str, int]:
    """Return sizes in KiB by name; {} if the process has ended."""
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def encode_alone(file: Path, tokenizer: str, workers: int) -> float:
    """Return the seconds to render and encode prompt and both prompt + completion of each row."""
    context = get_context("spawn")
    with context.Pool(workers, start, [tokenizer]) as pool:
        pool.map(encode_rows, [[] for _ in range(workers * 4)])  # so that every process has started
        begun = time.perf_counter()
        for _ in pool.imap_unordered(encode_rows, slices(file)):
            pass
        return time.perf_counter() - begun


def slices(file: Path) -> Iterator[list[str]]:
    with file.open() as lines:
        rows: list[str] = []
        for line in lines:
            rows.append(line)
            if len(rows) == SLICE:
                yield rows
                rows = []
        yield rows


def start(tokenizer: str) -> None:
    from transformers import AutoTokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    globals()["TOKENIZER"] = AutoTokenizer.from_pretrained(tokenizer)


def encode_rows(lines: list[str]) -> int:
    tokenizer: Any = globals()["TOKENIZER"]
    texts = []
    for line in lines:
        row = json.loads(line)
        render = tokenizer.apply_chat_template
        texts.append(render(row["prompt"], tokenize=False, add_generation_prompt=True))
        texts += [
            render(row["prompt"] + row[side], tokenize=False) for side in ("chosen", "rejected")
        ]
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return sum(len(encoding.ids) for encoding in encodings)


if __name__ == "__main__":
    main()
