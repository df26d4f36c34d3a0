"""Reference log-probs of every completion of a build, computed once and kept next to its shards.

Files are committed one by one. Every half minute, the finished rows of the current file are also
saved, window of packs by window, so that a killed run continues from there. The manifest is written
last.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import prefdata
from dpo.data.pairs import Pairs
from dpo.data.progress import Ledger
from dpo.data.reference_folder import reference_folder, require_own_reference
from dpo.data.reference_store import ReferenceManifest
from dpo.data.sampler import packs_in_order
from dpo.errors import TrainingError
from dpo.model.cpu_memory import tune_cpu_allocator
from dpo.model.fingerprints import (
    WeightsId,
    check_lengths,
    check_tokenizer,
    check_vocabulary,
    values_sha256,
)
from dpo.model.load import best_device, check_model, load_model
from dpo.model.policy import Policy, RowLogps, row_logps
from dpo.model.self_check import make_policy
from dpo.model.weights import left_out
from dpo.precision import Precision
from prefdata.progress import Advance, Progress, Silent
from prefdata.store.commit import lock_folder, make_folder
from prefdata.store.manifest import shared_name
from prefdata.store.reader import Shard
from prefdata.store.shards import REFERENCE, TOKEN_LOGPS

KEEP_EVERY = 30.0
"""Seconds between saves of a shard's finished rows."""


class _Pass(NamedTuple):
    """A policy, the precision and pack size to run it with, and the bar."""

    policy: Policy
    precision: Precision
    pack_tokens: int
    advance: Advance


def compute_reference(
    data: str | Path,
    *,
    model: str,
    name: str | Path = "default",
    mixed_precision: Precision = "no",
    pack_tokens: int = 2048,
    progress: Progress | None = None,
) -> ReferenceManifest:
    """Write the log-probs of every completion of a build under `model`.

    They are stored in `reference/NAME` in the build; a `Path` is used as it is. A finished
    directory with the same fingerprint is not changed; one with another is an error. The bar
    counts pairs. Raises DpoError and PrefdataError.
    """
    progress = progress or Silent()
    tune_cpu_allocator()
    build = prefdata.open(data, remembers=False)
    folder = reference_folder(build.path, name)
    if isinstance(name, str):  # the caller checks the directory of a `Path`
        require_own_reference(folder, build.path)
    check_model(model)
    check_tokenizer(model, build)
    make_folder(folder)
    shards = [shard for split in build.splits for shard in build.shards(split)]
    title = name.name if isinstance(name, Path) else "reference"
    with lock_folder(folder), progress.bar(title, sum(s.rows for s in shards)) as advance:
        loaded = load_model(model, device=best_device())
        pairs = Pairs([shard.read() for shard in shards])
        check_vocabulary(loaded, pairs, place=model)
        notices = (left_out(model, loaded), check_lengths(loaded, pairs, place=model))
        policy, why = make_policy(loaded, pairs, precision=mixed_precision)
        unshared = why and f"prompts are not shared by their completions: {why}"
        for line in filter(None, (unshared, *notices)):
            progress.note(line)
        plain = ReferenceManifest(
            model=shared_name(model),
            **WeightsId(model, partial(values_sha256, loaded)).seal(Ledger.before(folder)),
            tokenizer_sha256=build.manifest.tokenizer.tokenizer_sha256,
            template_sha256=build.manifest.tokenizer.template_sha256,
            build_hash=build.manifest.hash,
            content_hash=build.content_hash,
            mixed_precision=mixed_precision,
            shared_prompts=policy.shared,
            token_shards={seal.path: seal.sha256 for seal in build.manifest.shards},
            notices=[line for line in notices if line is not None],
        )
        ledger = Ledger(folder, plain)
        _write_shards(ledger, shards, _Pass(policy, mixed_precision, pack_tokens, advance))
        return ledger.close()


def _write_shards(ledger: Ledger, shards: Sequence[Shard], run: _Pass) -> None:
    for shard in shards:
        if ledger.holds(Path(shard.name).name):
            run.advance(shard.rows)
        else:
            _write_shard(ledger, shard, run)


def _write_shard(ledger: Ledger, shard: Shard, run: _Pass) -> None:
    """Write the reference columns of one token shard, in the order of its rows."""
    name, pairs = Path(shard.name).name, Pairs([shard.read()])
    pieces = ledger.pieces(name)
    kept = first = sum(map(len, pieces))
    run.advance(kept)
    fresh = [REFERENCE.empty_table()]
    since = time.monotonic()
    for (packs,) in packs_in_order(pairs, len(pairs), budget=run.pack_tokens):
        last = max(map(max, packs)) + 1
        if last <= kept:
            continue
        fresh.append(_window(pairs, range(first, last), packs, run))
        first = last
        if time.monotonic() - since > KEEP_EVERY and first < len(pairs):
            pieces.append(pa.concat_tables(fresh))
            ledger.keep(name, shard, pieces[-1], first=first - len(pieces[-1]))
            fresh, since = [REFERENCE.empty_table()], time.monotonic()
    ledger.finish(name, shard, pa.concat_tables([*pieces, *fresh]))


def _window(pairs: Pairs, rows: range, packs: list[list[int]], run: _Pass) -> pa.Table:
    """Return the reference columns of `rows`, all rows of the packs, without a gap."""
    found: dict[int, RowLogps] = {}
    sums = np.zeros((len(rows), 2), np.float32)
    for some in packs:
        places = np.array(some) - rows.start
        tokens, sums[places] = row_logps(run.policy, pairs, some, precision=run.precision)
        _refuse_nonfinite(pairs, some, sums[places], run)
        found.update(zip(some, tokens, strict=True))
        run.advance(len(some))
    tokens_of = [pa.array([found[row][side] for row in rows], TOKEN_LOGPS) for side in (0, 1)]
    pair_ids = pa.array([bytes.fromhex(pairs.pair_id(row)) for row in rows], pa.binary(16))
    return pa.table([pair_ids, sums[:, 0], sums[:, 1], *tokens_of], schema=REFERENCE)


def _refuse_nonfinite(pairs: Pairs, rows: list[int], sums: NDArray[np.float32], run: _Pass) -> None:
    """Raise TrainingError (T199) at the first row with non-finite log-probs; none is stored."""
    wrong = np.flatnonzero(~np.isfinite(sums).all(1)).tolist()
    if not wrong:
        return
    row, place = min((rows[place], place) for place in wrong)
    chosen, rejected = sums[place].tolist()
    problem = f"pair {pairs.pair_id(row)} has log-probs {chosen} and {rejected}"
    remedy = (
        "its weights are finite, so activations overflow: run with mixed_precision bf16 or no;"
        " if it is already, use another checkpoint"
    )
    raise TrainingError("T199", type(run.policy.model).__name__, problem, remedy)
