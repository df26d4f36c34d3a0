"""Near-duplicates against datasketch, rensa and text-dedup: time, memory, recall, precision.

    python bench/near_duplicates.py --data HH.jsonl.gz --python rensa=/venv/bin/python …

Documents are grown from real texts by seeded edits. Each tool runs in its own process, one after
the other, from a list of texts in memory to its near-duplicates; shingling is included for all.
For a tool that is not installed here, `--python TOOL=PATH` names the Python that runs it.

* recall: the share of a sample's pairs with exact Jaccard similarity ≥ 0.7 on word 5-grams whose
  texts are in one cluster of the tool (the transitive closure of its pairs);
* precision: the share of a sample of the tool's pairs that are so similar.

The oracle uses Python's `re` and sets. On a busy machine, compare CPU seconds.
"""

import argparse
import gzip
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

THRESHOLD, NUM_WORDS, NUM_PERM = 0.7, 5, 128
WORD = re.compile(r"[^\W_]+")
Pairs = list[tuple[int, int]]


def read_texts(path: Path) -> list[str]:
    """Return both dialogues of every row."""
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [row[side] for row in rows for side in ("chosen", "rejected")]


def grow(texts: list[str], number: int, seed: int = 0) -> list[str]:
    """Return texts and copies with words replaced, dropped or inserted, or a sentence dropped."""
    draw = random.Random(seed)
    vocabulary = sorted({word for text in texts for word in text.split()})
    grown = list(texts[:number])
    while len(grown) < number:
        words = draw.choice(texts).split(" ")
        for _ in range(draw.randint(0, max(1, len(words) // 15))):
            at = draw.randrange(len(words))
            match draw.randrange(4):
                case 0:
                    words[at] = draw.choice(vocabulary)
                case 1 if len(words) > 1:
                    del words[at]
                case 2:
                    words.insert(at, draw.choice(vocabulary))
                case _:
                    sentences = " ".join(words).split(". ")
                    del sentences[draw.randrange(len(sentences)) if draw.random() < 0.3 else -1]
                    words = ". ".join(sentences).split(" ") if sentences else words
        grown.append(" ".join(words))
    draw.shuffle(grown)
    return grown


def shingles(text: str) -> list[str]:
    """Return word 5-grams, the input of the other tools."""
    words = WORD.findall(text.lower())
    if len(words) < NUM_WORDS:
        return [" ".join(words)] if words else []
    return list(map(" ".join, zip(*(words[n:] for n in range(NUM_WORDS)), strict=False)))


def run_prefdata(texts: list[str]) -> Callable[[], Pairs]:
    import polars as pl

    from prefdata.dedup.near import SketchOptions, choose, cluster, find_pairs, make_sketch
    from prefdata.dedup.near.overlap import SetStore

    sketch = make_sketch(pl.Series(texts), SketchOptions(NUM_WORDS, THRESHOLD))
    pairs = find_pairs([sketch], threshold=THRESHOLD)
    choose(cluster(len(texts), pairs), SetStore([sketch]))
    return lambda: list(pairs.select("a", "b").iter_rows())


def run_datasketch(texts: list[str]) -> Callable[[], Pairs]:
    from datasketch import MinHash, MinHashLSH

    sets = ([shingle.encode() for shingle in shingles(text)] for text in texts)
    made = MinHash.bulk(sets, num_perm=NUM_PERM)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM)
    pairs = []
    for row, minhash in enumerate(made):
        pairs += [(other, row) for other in index.query(minhash)]
        index.insert(row, minhash)
    return lambda: pairs


def run_rensa(texts: list[str]) -> Callable[[], Pairs]:
    """Compute only flags, by the call that rensa's documentation names for batches."""
    from rensa import RMinHash, RMinHashLSH

    def index() -> RMinHashLSH:
        return RMinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM, num_bands=16)

    sets = [shingles(text) for text in texts]
    matrix = RMinHash.digest_matrix_from_token_sets(sets, NUM_PERM, 42)
    index().query_duplicate_flags_matrix_one_shot(matrix)

    def pairs() -> Pairs:
        made, lsh = RMinHash.from_token_sets(sets, NUM_PERM, 42), index()
        lsh.insert_many(made)
        found = enumerate(lsh.query_all(made))
        return [(row, other) for row, others in found for other in others if row < other]

    return pairs


def run_text_dedup(texts: list[str]) -> Callable[[], Pairs]:
    """Call text-dedup's functions in a plain loop; its dataset pipeline would be slower."""
    import numpy as np
    from text_dedup.minhash import INDEX_COLUMN, RNG, SIGNATURE_COLUMN, embed_func
    from text_dedup.utils import UnionFind, optimal_param, xxh3_32hash

    bands, rows = optimal_param(THRESHOLD, NUM_PERM, 0.5, 0.5)
    prime, forest = np.uint64((1 << 61) - 1), UnionFind()
    how = {
        "num_perm": NUM_PERM, "ngram_size": NUM_WORDS, "min_length": 0, "hash_func": xxh3_32hash,
        "hashranges": [(band * rows, (band + 1) * rows) for band in range(bands)],
        "permutations": tuple(RNG.randint(n, prime, NUM_PERM, np.uint64) for n in (1, 0)),
        "dtype": np.uint64, "max_hash": np.uint32((1 << 32) - 1), "modulo_prime": prime,
    }  # fmt: skip
    tables: list[dict[bytes, set[int]]] = [defaultdict(set) for _ in range(bands)]
    for row, text in enumerate(texts):
        made = embed_func(text, row, **how)
        for table, key in zip(tables, made[SIGNATURE_COLUMN], strict=True):
            table[key].add(made[INDEX_COLUMN])
    pairs = []
    for table in tables:
        for bucket in table.values():
            first = min(bucket)
            for row in bucket - {first}:
                forest.union(row, first)
                pairs.append((first, row))
    return lambda: pairs


TOOLS: dict[str, Callable[[list[str]], Callable[[], Pairs]]] = {
    "prefdata": run_prefdata,
    "datasketch": run_datasketch,
    "rensa": run_rensa,
    "text-dedup": run_text_dedup,
}


def run_here(tool: str, folder: Path) -> None:
    """Run a tool in this process; print its figures as JSON and write its pairs to a file."""
    texts = json.loads((folder / "texts.json").read_bytes())
    TOOLS[tool](texts[:50])  # imports
    before, start, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    pairs = TOOLS[tool](texts)
    seconds, cpu, peak = time.perf_counter() - start, time.process_time() - cpu, _peak_mib()
    (folder / f"{tool}.json").write_text(json.dumps(sorted(set(pairs()))))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "before": before}))


def _peak_mib() -> float:
    """Return the peak of this process in MiB; `getrusage` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


class Oracle:
    """Exact similarity by Python's sets, and all near-duplicates of given texts."""

    def __init__(self, texts: list[str]) -> None:
        self.sets = [frozenset(map(hash, shingles(text))) for text in texts]

    def similarity(self, a: int, b: int) -> float:
        first, second = self.sets[a], self.sets[b]
        return len(first & second) / max(len(first | second), 1)

    def pairs_of(self, rows: list[int]) -> Pairs:
        wanted = {shingle for row in rows for shingle in self.sets[row]}
        holders: dict[int, list[int]] = defaultdict(list)
        for row, found in enumerate(self.sets):
            for shingle in found & wanted:
                holders[shingle].append(row)
        pairs = set()
        for row in rows:
            others = Counter(other for shingle in self.sets[row] for other in holders[shingle])
            near = (other for other in others if other != row)
            pairs |= {
                (min(row, other), max(row, other))
                for other in near
                if self.similarity(row, other) >= THRESHOLD
            }
        return sorted(pairs)


def close(pairs: Pairs, number: int) -> list[int]:
    """Return the cluster label of each text."""
    parents = list(range(number))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    for a, b in pairs:
        parents[root(a)] = root(b)
    return [root(row) for row in range(number)]


def print_quality(tools: list[str], oracle: Oracle, folder: Path, sample: int) -> None:
    draw = random.Random(0)
    number = len(oracle.sets)
    expected = oracle.pairs_of(draw.sample(range(number), min(sample, number)))
    for tool in tools:
        pairs: Pairs = json.loads((folder / f"{tool}.json").read_bytes())
        labels = close(pairs, number)
        together = sum(labels[a] == labels[b] for a, b in expected)
        some = draw.sample(pairs, min(5000, len(pairs)))
        right = sum(oracle.similarity(a, b) >= THRESHOLD for a, b in some)
        print(
            f"  {tool:12} recall {together / max(len(expected), 1):.4f} of {len(expected):,} pairs"
            f"   precision {right / max(len(some), 1):.4f} of {len(some):,}"
        )


def print_speed(results: dict[str, list[dict[str, float]]]) -> None:
    for tool, runs in results.items():
        print(f"  {tool}")
        for clock, title in (("seconds", "seconds"), ("cpu", "CPU seconds")):
            ours = [run[clock] for run in results["prefdata"]]
            spent = sorted(run[clock] for run in runs)
            ratios = sorted(run[clock] / our for run, our in zip(runs, ours, strict=True))
            print(f"    {title:12} {_spread(spent)}   times ours {_spread(ratios)}")
        peak, before = max(run["peak"] for run in runs), min(run["before"] for run in runs)
        print(f"    memory       {peak:,.0f} MiB at most, {before:,.0f} of them before it starts")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):7.2f} ({values[0]:.2f}–{values[-1]:.2f})"


def bench(title: str, texts: list[str], pythons: dict[str, str], arguments: Any) -> None:
    print(f"{title}: {len(texts):,} texts, {sum(map(len, texts)) / len(texts):.0f} characters each")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.json").write_text(json.dumps(texts))
        results: dict[str, list[dict[str, float]]] = {tool: [] for tool in pythons}
        for _ in range(arguments.runs):
            for tool, python in pythons.items():
                command = [python, __file__, "--run", tool, "--folder", name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results[tool].append(json.loads(done.stdout.splitlines()[-1]))
        print_speed(results)
        print_quality(list(pythons), Oracle(texts), folder, arguments.sample)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="HH's jsonl.gz: rows of chosen and rejected")
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sample", type=int, default=4000, help="texts in the sample for recall")
    parser.add_argument("--python", action="append", default=[], help="TOOL=PATH of its Python")
    parser.add_argument("--run", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_here(arguments.run, arguments.folder)
        return
    pythons = {"prefdata": sys.executable} | dict(item.split("=", 1) for item in arguments.python)
    texts = read_texts(arguments.data)
    bench("real texts", texts, pythons, arguments)
    bench("grown texts", grow(texts, arguments.number), pythons, arguments)


if __name__ == "__main__":
    main()
