"""Reference log-probs of every completion of a build, computed once and kept next to its shards.

Files are committed one by one. Every half minute, the finished rows of the current file are also
saved, window of packs by window, so that a killed run continues from there. The manifest is written
last.

Several processes take the packs of a window in turn, or of as many windows as there are processes;
the first one collects and writes them. Packs do not depend on the number of processes, so neither
do the files, and a run may continue with another number.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from transformers import PreTrainedModel

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
)
from dpo.model.load import check_model, held_in
from dpo.model.policy import Policy, RowLogps, row_logps
from dpo.model.self_check import make_policy
from dpo.model.sharded import fill, load_part
from dpo.model.source import ModelSource, as_source, find_parts
from dpo.model.weights import left_out
from dpo.precision import Precision, precision_of
from dpo.training.distributed import is_sharded, join_processes, sharding
from prefdata.progress import Advance, Progress, Silent
from prefdata.store.commit import lock_folder, make_folder
from prefdata.store.manifest import shared_name
from prefdata.store.reader import Build, Shard, open_lazily
from prefdata.store.shards import REFERENCE, TOKEN_LOGPS

KEEP_EVERY = 30.0
"""Seconds between saves of a shard's finished rows."""


class _Pass(NamedTuple):
    """A policy, the precision and pack size to run it with, the processes and the bar."""

    policy: Policy
    precision: Precision
    given: int | None
    """Tokens of a pack; None is 2,048 on a CPU and 16,384 on a GPU."""
    ranks: PartialState
    advance: Advance

    @property
    def pack_tokens(self) -> int:
        return self.given or (2048 if self.ranks.device.type == "cpu" else 16_384)


class _Found(NamedTuple):
    """Rows of a pack with their token log-probs and sums, (rows, 2)."""

    rows: list[int]
    tokens: list[RowLogps]
    sums: NDArray[np.float32]


def compute_reference(
    data: str | Path,
    *,
    model: str | ModelSource,
    name: str | Path = "default",
    mixed_precision: Precision | None = None,
    pack_tokens: int | None = None,
    progress: Progress | None = None,
) -> ReferenceManifest:
    """Write the log-probs of every completion of a build under `model`.

    They are stored in `reference/NAME` in the build; a `Path` is used as it is. A finished
    directory with the same fingerprint is not changed; one with another is an error. Precision and
    pack size are the device's if None. The bar counts pairs. Raises DpoError and PrefdataError.
    """
    ranks, how = join_processes(), sharding()
    precision = mixed_precision or precision_of(ranks.device)
    is_main = ranks.is_main_process
    progress = (progress if is_main else None) or Silent()
    tune_cpu_allocator()
    build = open_lazily(data)
    folder = reference_folder(build.path, name)
    if is_main and isinstance(name, str):  # the caller checks the directory of a `Path`
        require_own_reference(folder, build.path)
    source = as_source(model)
    check_model(source)
    largest_id = check_tokenizer(find_parts(source).tokenizer, build)
    make_folder(folder)
    shards = [shard for split in build.splits for shard in build.shards(split)]
    title = name.name if isinstance(name, Path) else "reference"
    lock = lock_folder(folder) if is_main else nullcontext()
    with lock, progress.bar(title, sum(s.rows for s in shards)) as advance:
        loaded = load_part(source, device=ranks.device, how=how)
        pairs, base = Pairs(shards), find_parts(source).base
        check_vocabulary(loaded, pairs, largest_known=largest_id, place=source.name)
        notices = (left_out(base, loaded), check_lengths(loaded, pairs, place=source.name))
        prepare = partial(fill, name=base, how=how)
        policy, why = make_policy(loaded, pairs, precision=precision, prepare=prepare)
        unshared = why and f"prompts are not shared by their completions: {why}"
        for line in filter(None, (unshared, *notices)):
            progress.note(line)
        plain = ReferenceManifest(
            **_decides(build, source, loaded, folder),
            mixed_precision=precision,
            shared_prompts=policy.shared,
            notices=[line for line in notices if line is not None],
        )
        ledger = Ledger(folder, plain) if is_main else None
        _write_shards(ledger, shards, _Pass(policy, precision, pack_tokens, ranks, advance))
        return ReferenceManifest.model_validate(_of_main(ledger and ledger.close()))


def _decides(
    build: Build, source: ModelSource, loaded: PreTrainedModel, folder: Path
) -> dict[str, Any]:
    """Return the manifest fields that come from the build and the model, not from the pass."""
    before = _of_main(Ledger.before(folder) if PartialState().is_main_process else None)
    adapter = "" if source.adapter is None else f" + {shared_name(source.adapter)}"
    return WeightsId.of(source, loaded).seal(before) | {
        "model": shared_name(source.name) + adapter,
        "weights": held_in(source),
        "quantize": source.quantize,
        "tokenizer_sha256": build.manifest.tokenizer.tokenizer_sha256,
        "template_sha256": build.manifest.tokenizer.template_sha256,
        "build_hash": build.manifest.hash,
        "content_hash": build.content_hash,
        "token_shards": {seal.path: seal.sha256 for seal in build.manifest.shards},
    }


def _of_main(value: Any) -> Any:
    """Return the value that the first process has, in every process."""
    return broadcast_object_list([value])[0]


def _write_shards(ledger: Ledger | None, shards: Sequence[Shard], run: _Pass) -> None:
    """Write all shards that are not complete: the first process has the ledger."""
    kept: list[int | None] = _of_main(
        [ledger.rows_of(Path(shard.name).name) for shard in shards] if ledger is not None else None
    )
    for shard, rows in zip(shards, kept, strict=True):
        if rows is None:
            run.advance(shard.rows)
        else:
            _write_shard(ledger, shard, run, kept=rows)


def _write_shard(ledger: Ledger | None, shard: Shard, run: _Pass, *, kept: int) -> None:
    """Write the reference columns of one token shard, in the order of its rows."""
    name, pairs = Path(shard.name).name, Pairs([shard])
    pieces = [] if ledger is None else ledger.pieces(name)
    run.advance(kept)
    first, fresh, since = kept, [REFERENCE.empty_table()], time.monotonic()
    windows = packs_in_order(pairs, len(pairs), budget=run.pack_tokens, first=kept)
    while packs := [some for (few,) in islice(windows, run.ranks.num_processes) for some in few]:
        found = gather_object(_run_share(pairs, packs, run))
        if ledger is None:
            continue
        last = max(map(max, packs)) + 1
        fresh.append(_table(pairs, range(first, last), found, run))
        first = last
        if time.monotonic() - since > KEEP_EVERY and first < len(pairs):
            pieces.append(pa.concat_tables(fresh))
            ledger.keep(name, shard, pieces[-1], first=first - len(pieces[-1]))
            fresh, since = [REFERENCE.empty_table()], time.monotonic()
    if ledger is not None:
        ledger.finish(name, shard, pa.concat_tables([*pieces, *fresh]))


def _run_share(pairs: Pairs, packs: list[list[int]], run: _Pass) -> list[_Found]:
    """Run this process's share of some packs.

    All processes gather sharded weights together, so those without a pack run another once more.
    """
    ranks = run.ranks
    mine = packs[ranks.process_index :: ranks.num_processes]
    found = []
    for some in mine:
        found.append(_Found(some, *row_logps(run.policy, pairs, some, precision=run.precision)))
        run.advance(len(some))
    idle = -(-len(packs) // ranks.num_processes) - len(mine) if is_sharded(run.policy) else 0
    for _ in range(idle):
        row_logps(run.policy, pairs, packs[0], precision=run.precision)
    if ranks.is_main_process:  # its bar counts the others' rows too
        run.advance(sum(map(len, packs)) - sum(map(len, mine)))
    return found


def _table(pairs: Pairs, rows: range, found: Sequence[_Found], run: _Pass) -> pa.Table:
    """Return the reference columns of `rows`, which are those of `found`, without a gap."""
    tokens: dict[int, RowLogps] = {}
    sums = np.zeros((len(rows), 2), np.float32)
    for some in found:
        sums[np.array(some.rows) - rows.start] = some.sums
        tokens.update(zip(some.rows, some.tokens, strict=True))
    _refuse_nonfinite(pairs, rows, sums, run)
    tokens_of = [pa.array([tokens[row][side] for row in rows], TOKEN_LOGPS) for side in (0, 1)]
    pair_ids = pa.array([bytes.fromhex(pairs.pair_id(row)) for row in rows], pa.binary(16))
    return pa.table([pair_ids, sums[:, 0], sums[:, 1], *tokens_of], schema=REFERENCE)


def _refuse_nonfinite(pairs: Pairs, rows: range, sums: NDArray[np.float32], run: _Pass) -> None:
    """Raise TrainingError (T199) at the first row with non-finite log-probs; none is stored."""
    wrong = np.flatnonzero(~np.isfinite(sums).all(1)).tolist()
    if not wrong:
        return
    chosen, rejected = sums[wrong[0]].tolist()
    problem = f"pair {pairs.pair_id(rows[wrong[0]])} has log-probs {chosen} and {rejected}"
    remedy = (
        "its weights are finite, so activations overflow: run with mixed_precision bf16 or no;"
        " if it is already, use another checkpoint"
    )
    raise TrainingError("T199", type(run.policy.model).__name__, problem, remedy)
