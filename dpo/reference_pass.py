"""Reference log-probs of every completion of a build, computed once and kept beside its shards.

Files are committed one by one, and `partial.json` lists those that are done, so that a run which
dies goes on at the first missing one. The manifest comes last.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import prefdata
from dpo.allocator import keep_freed_memory
from dpo.checks import check_tokenizer, check_vocabulary
from dpo.data import Pairs
from dpo.errors import MismatchError
from dpo.forward import RowLogps, row_logps
from dpo.load import best_device, load_config, load_model, weights_sha256
from dpo.order import packs_in_order
from dpo.policy import Policy
from dpo.refstore import COLUMNS, TOKEN_LOGPS, Precision, ReferenceManifest, read_manifest
from dpo.selfcheck import make_policy
from prefdata.store.commit import commit_file, lock_folder, make_folder, write_bytes
from prefdata.store.manifest import ShardSeal
from prefdata.store.reader import Build, Shard
from prefdata.store.shards import write_shard
from prefdata.store.verify import cache_folder, check_seal

Progress = Callable[[int, int], None]


class _Pass(NamedTuple):
    """A policy and how to run it."""

    policy: Policy
    precision: Precision
    pack_tokens: int


def compute_reference(
    data: str | Path,
    *,
    model: str,
    name: str | Path = "default",
    mixed_precision: Precision = "no",
    pack_tokens: int = 2048,
    progress: Progress = lambda done, total: None,  # noqa: ARG005
) -> ReferenceManifest:
    """Write the log-probs of every completion of a build under `model`.

    They go to `reference/NAME` in the build; a `Path` is taken as it is.
    `progress` hears of the rows that are done and of all rows. A finished folder of the same
    fingerprint is left as it is, one of another is an error. Raises DpoError and PrefdataError.
    """
    keep_freed_memory()
    build = prefdata.open(data)
    load_config(model)
    check_tokenizer(model, build)
    folder = name if isinstance(name, Path) else build.path / "reference" / name
    make_folder(folder)
    with lock_folder(folder):
        loaded = load_model(model, device=best_device())
        pairs = Pairs([shard.read() for split in build.splits for shard in build.shards(split)])
        check_vocabulary(loaded, pairs, place=model)
        policy, _ = make_policy(loaded, pairs)
        plain = ReferenceManifest(
            model=model,
            weights_sha256=weights_sha256(loaded),
            tokenizer_sha256=build.manifest.tokenizer.tokenizer_sha256,
            template_sha256=build.manifest.tokenizer.template_sha256,
            build_hash=build.manifest.hash,
            mixed_precision=mixed_precision,
            shared_prompts=policy.shared,
            token_shards={seal.path: seal.sha256 for seal in build.manifest.shards},
        )
        return _write_shards(
            folder, build, plain, _Pass(policy, mixed_precision, pack_tokens), progress
        )


def _write_shards(
    folder: Path, build: Build, plain: ReferenceManifest, run: _Pass, progress: Progress
) -> ReferenceManifest:
    done = _done_before(folder, plain)
    shards = [shard for split in build.splits for shard in build.shards(split)]
    names = {seal.path for seal in done.shards}
    total, rows = sum(shard.rows for shard in shards), 0
    progress(rows, total)
    for shard in shards:
        path = folder / Path(shard.name).name
        if path.name not in names:
            table = _logps_table(shard, run, partial(_shifted, progress, rows, total))
            done = done.with_shard(_commit(path, shard, table))
            write_bytes(folder / "partial.json", done.to_bytes())
        rows += shard.rows
        progress(rows, total)
    if not (folder / "manifest.json").exists():
        write_bytes(folder / "manifest.json", done.to_bytes())
    (folder / "partial.json").unlink(missing_ok=True)
    return done


def _shifted(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _commit(path: Path, shard: Shard, table: pa.Table) -> ShardSeal:
    seal = commit_file(path, lambda temporary: write_shard(temporary, table))
    return ShardSeal(
        path=path.name, split=shard.split, rows=shard.rows, tokens=shard.tokens, **seal._asdict()
    )


def _done_before(folder: Path, plain: ReferenceManifest) -> ReferenceManifest:
    """What an earlier run of the same fingerprint left, each file as it was sealed."""
    for path in (folder / "manifest.json", folder / "partial.json"):
        if not path.exists():
            continue
        before = read_manifest(path)
        if before.decides() != plain.decides():
            problem = "holds log-probs of another model, build or precision"
            raise MismatchError("T205", str(folder), problem, "choose another --name, or delete it")
        for seal in before.shards:
            check_seal(folder / seal.path, seal.seal, cache_folder())
        return before
    return plain.with_shards([])


def _logps_table(shard: Shard, run: _Pass, progress: Callable[[int], None]) -> pa.Table:
    """Reference columns of one token shard, row by row alike."""
    table = shard.read()
    pairs = Pairs([table])
    found: dict[int, RowLogps] = {}
    sums = np.zeros((len(pairs), 2), np.float32)
    packs = packs_in_order(pairs, len(pairs), budget=run.pack_tokens)
    for rows in (rows for (share,) in packs for rows in share):
        tokens, sums[rows] = row_logps(run.policy, pairs, rows, precision=run.precision)
        found.update(zip(rows, tokens, strict=True))
        progress(len(found))
    ordered = [found[row] for row in range(len(pairs))]
    tokens_of = [pa.array([row[side] for row in ordered], TOKEN_LOGPS) for side in (0, 1)]
    pair_ids = table["pair_id"].combine_chunks()
    return pa.table([pair_ids, sums[:, 0], sums[:, 1], *tokens_of], schema=COLUMNS)
