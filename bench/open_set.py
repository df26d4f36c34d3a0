"""Seconds and memory until step 1 as a set grows: nothing may grow with the number of pairs.

    python bench/open_set.py --folder /tmp/sets --pairs 200000 2000000 20000000

Shards are synthetic: 65,535 pairs, the prompts of a small real build in random order with ids of
their own and the log-probs that a tiny model gave them. All shards of a split are links to one
file, so the disk needs 40 MB and everything is in the page cache; to the reader they are files
like any others, which it hashes one by one. Each run is a process of its own that trains one step.
It prints seconds from the start of the run to step 1 (without imports), and its peak of anonymous
memory (RssAnon, fifty times a second): that is private; pages of files (RssFile) can be dropped at
any time. No peer: TRL copies all tokens.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from gpu_cases import WORDS, write_checkpoint

SHARD_ROWS = 65_535
LONGEST = 12
"""Most tokens of a part: 21 on average in a pair."""
PROMPTS, ROWS_OF_A_PROMPT = 128, 3
TEST_SHARE = 0.01
REFERENCE = "reference/default"
COMMANDS = ("train", "resume", "groups", "ref")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the sets, removed again")
    parser.add_argument("--pairs", type=int, nargs="+", default=[2_000, 200_000, 2_000_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    parser.add_argument("--keep", action="store_true", help="keep the sets")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.folder, *options.child)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'pairs':>12} {'':8} {'ranks':>5} {'seconds':>8} {'anon MB':>8} {'file MB':>8}")
    for pairs in options.pairs:
        data = make_set(options.folder, pairs)
        for command in options.commands:
            for ranks in options.ranks:
                for found in watch(data, command, ranks):
                    print(
                        f"{pairs:12,} {command:8} {ranks:5} {found['seconds']:8.1f}"
                        f" {found['anon']:8.0f} {found['file']:8.0f}",
                        flush=True,
                    )
        if not options.keep:
            shutil.rmtree(data)


def watch(data: Path, command: str, ranks: int) -> list[dict[str, float]]:
    """Run a command in processes of its own; return the figures of each rank."""
    out = data.parent / "run"
    if command != "resume":
        shutil.rmtree(out, ignore_errors=True)
    words = [__file__, "--folder", str(data.parent), "--child", command, str(data)]
    if ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        words = [*launcher, *words]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=500)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if len(lines) != (1 if command == "ref" else ranks):  # one rank shows what all have done
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return [json.loads(line) for line in lines]


class Peak:
    """Peak of this process's memory in MB, by kind, sampled in a thread."""

    def __init__(self) -> None:
        self.anon = self.file = 0.0
        self.is_over = False
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.sample()
            time.sleep(0.02)

    def sample(self) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
        self.anon = max(self.anon, int(sizes["RssAnon"]) / 1024)
        self.file = max(self.file, int(sizes["RssFile"]) / 1024)


def run_child(folder: Path, command: str, name: str) -> None:
    """Run a command until its first result, print its figures, and end the process."""
    import dpo
    from dpo.config_file import parse_config
    from dpo.training import loop, step
    from prefdata.progress import Silent

    peak, started, take_step = Peak(), time.perf_counter(), step.train_step

    def say() -> None:
        seconds = time.perf_counter() - started
        peak.sample()
        line = json.dumps({"seconds": seconds, "anon": peak.anon, "file": peak.file})
        os.write(1, f"{line}\n".encode())  # whole, where two ranks write at once

    def take_one(run: Any, number: int) -> dict[str, float]:
        if peak.is_over:  # the checkpoint of the step before is written
            leave()
        metrics = take_step(run, number)
        say()
        peak.is_over = True
        return metrics

    class Until(Silent):
        """Progress that ends the process at the first rows."""

        def bar(self, *_: Any) -> Any:
            return nullcontext(self._end)

        def _end(self, rows: int) -> None:
            if rows:
                say()
                os._exit(0)

    model = str(folder / "model")
    if command == "ref":
        dpo.reference(name, model=model, name="other", progress=Until())
    settings = {
        "data": name, "model": model, "out": str(folder / "run"), "steps": 4,
        "global_batch_size": 64, "checkpoint_every": 1, "eval_rows": 64,
        "batch_unit": "groups" if command == "groups" else "pairs",
    }  # fmt: skip
    loop.__dict__["train_step"] = take_one
    loop.train(parse_config(settings, place="bench"))


def leave() -> None:
    """End this process once all ranks are here: one that waits for another would fail."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
    os._exit(0)


def make_set(folder: Path, pairs: int) -> Path:
    """Write a finished set of that many pairs with its reference; return its directory."""
    import dpo
    import prefdata

    out, model = folder / f"set-{pairs}", folder / "model"
    if (out / "manifest.json").exists():
        return out
    if not model.exists():
        write_checkpoint(model, {"model_type": "llama"}, device="cpu", toy=True)
    base = folder / "base"
    if not base.exists():
        prefdata.build(
            list(rows()), tokenizer=str(model), out=base, test_fraction=0.0,
            pairing={"strategy": "all"}, severity={"PD402": "off"},
        )  # fmt: skip
        dpo.reference(base, model=str(model))
    grow(base, out, {"train": pairs, "test": max(ROWS_OF_A_PROMPT, int(TEST_SHARE * pairs))})
    return out


def rows() -> Iterator[dict[str, Any]]:
    """Yield prompts with three ranked completions each, of random words."""
    draw = random.Random(0)

    def text() -> str:
        words = (f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(2, LONGEST)))
        return " ".join(words)

    for _ in range(PROMPTS):
        answers = [{"text": text(), "score": float(-rank)} for rank in range(ROWS_OF_A_PROMPT)]
        yield {"prompt": text(), "completions": answers}


def grow(base: Path, out: Path, splits: dict[str, int]) -> None:
    """Write shards with the prompts of `base` in random order, and both manifests."""
    import prefdata
    from dpo.data.reference_store import open_reference

    build, draws = prefdata.open(base), np.random.default_rng(0)
    stored = pa.concat_tables(open_reference(build, "default").tables("train"))
    sources = [build.tokens("train"), stored]
    (out / "tokens").mkdir(parents=True)
    (out / REFERENCE).mkdir(parents=True)
    seals: list[list[Any]] = [[], []]
    for split, wanted in splits.items():
        count = max(1, round(wanted / SHARD_ROWS))
        names = [f"{split}-{number:05d}-of-{count:05d}.arrow" for number in range(count)]
        prompts = min(SHARD_ROWS, wanted) // ROWS_OF_A_PROMPT
        tokens, logps = draw_tables(sources, prompts, draws)
        seals[0] += write_links(tokens, out, [f"tokens/{name}" for name in names], split)
        seals[1] += write_links(logps, out / REFERENCE, names, split)
    write_manifests(base, out, seals)


def write_links(table: pa.Table, folder: Path, names: list[str], split: str) -> list[Any]:
    """Write a shard under several names; return its entries in the manifest."""
    from prefdata.store.commit import seal_file
    from prefdata.store.manifest import ShardSeal
    from prefdata.store.shards import write_shard

    write_shard(folder / names[0], table)
    for name in names[1:]:
        os.link(folder / names[0], folder / name)
    digest = seal_file(folder / names[0])._asdict()
    return [
        ShardSeal(path=name, split=split, rows=len(table), tokens=0, **digest) for name in names
    ]


def write_manifests(base: Path, out: Path, seals: list[list[Any]]) -> None:
    """Write the manifests of a set like `base` with these shards, and of its reference."""
    from dpo.data.reference_store import read_manifest as read_reference
    from prefdata.store.manifest import SplitStats, read_manifest

    tokens, logps = seals
    rows: dict[str, int] = {}
    for seal in tokens:
        rows[seal.split] = rows.get(seal.split, 0) + seal.rows
    sizes = dict.fromkeys(("prompt_tokens", "chosen_tokens", "rejected_tokens"), 0)
    stats = {
        split: SplitStats(rows=size, groups=size // ROWS_OF_A_PROMPT, **sizes)
        for split, size in rows.items()
    }
    content = hashlib.sha256(str(rows).encode()).hexdigest()
    update: dict[str, Any] = {"shards": tokens, "splits": stats, "content_hash": content}
    manifest = read_manifest(base).model_copy(update=update).sealed()
    (out / "manifest.json").write_bytes(manifest.to_bytes())
    update = {
        "content_hash": content, "build_hash": manifest.hash,
        "token_shards": {seal.path: seal.sha256 for seal in tokens},
    }  # fmt: skip
    before = read_reference(base / REFERENCE / "manifest.json")
    stored = before.model_copy(update=update).with_shards(logps)
    (out / REFERENCE / "manifest.json").write_bytes(stored.to_bytes())


def draw_tables(
    sources: list[pa.Table], prompts: int, draws: np.random.Generator
) -> list[pa.Table]:
    """Return rows of tokens and of log-probs of random prompts, with ids of their own."""
    places = draws.integers(0, PROMPTS, prompts)[:, None] * ROWS_OF_A_PROMPT
    index = pa.array((places + np.arange(ROWS_OF_A_PROMPT)).ravel())
    ids = [draws.bytes(16 * prompts * ROWS_OF_A_PROMPT)]
    whole = np.frombuffer(draws.bytes(16 * prompts), np.uint8).reshape(-1, 16)
    ids.append(whole.repeat(ROWS_OF_A_PROMPT, 0).tobytes())
    columns = {
        name: pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(index), [None, pa.py_buffer(one)]
        )
        for name, one in zip(("pair_id", "group_id"), ids, strict=True)
    }
    found = []
    for source in sources:
        table = source.take(index)
        for name in columns.keys() & set(table.column_names):
            place = table.column_names.index(name)
            table = table.set_column(place, table.schema.field(name), columns[name])
        found.append(table)
    return found


if __name__ == "__main__":
    main()
