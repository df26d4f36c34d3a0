"""Mixture of sources by weight: how often each pair of train is written to its shards.

A source of weight w and n pairs has round(w · n) rows in train: each pair floor(w) times, and once
more for as many as are missing. Those are drawn by a seeded hash of the pair's id, so other pairs,
shards and workers change no draw. Pairs are counted when they are tokenized, so the numbers are
exact; a pair that is drawn no time is PD410.

The rows of a prompt stay adjacent, and its pairs come copy by copy:

    pairs a, b, c of a prompt, a three times and b twice:   a b c  a b  a
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from prefdata.engine import Done, Engine
from prefdata.engine.exchange import KEY, part_path, write_run
from prefdata.errors import EmptyError
from prefdata.hashing import mix
from prefdata.progress import Progress
from prefdata.read import InputFile
from prefdata.records.split_names import TRAIN
from prefdata.stages.counts import BuiltShards
from prefdata.stages.filter import NOT_DRAWN
from prefdata.stages.scan import ScanResult
from prefdata.stages.set_checks import ORDER
from prefdata.stages.shard import SHARD_STATS, ShardResult, ShardTask, measure_shard
from prefdata.store.manifest import SourceMix
from prefdata.store.shards import open_parquet, read_shard
from prefdata.store.staging import Staging, stage_shard, write_staged

_SLICE_ROWS = 8192


class MixTask(NamedTuple):
    """Inputs of a worker for one shard: its tokenized rows, and the order to write them in."""

    task: ShardTask
    made: ShardResult
    order: NDArray[np.int64]
    """Index in the tokenized rows of each row of the shard."""

    @property
    def about(self) -> str:
        return self.task.tokens_path


def is_mixture(files: Sequence[InputFile]) -> bool:
    """Return whether a source has another weight than 1."""
    return any(file.of.weight != 1 for file in files)


def mix_shards(
    made: BuiltShards,
    found: ScanResult,
    *,
    seed: int,
    workers: Engine,
    progress: Progress,
    staging: Staging,
) -> BuiltShards:
    """Write the train shards anew, each pair as often as its source's weight says."""
    is_train = [task.split == TRAIN for task in made.tasks]
    places = [made.order_of(number) for number in range(len(made.tasks)) if is_train[number]]
    rows = pl.concat([pl.DataFrame(schema=ORDER), *places])
    copies, mixture = _draw(rows, found, seed)
    if len(rows) and not copies.any():
        problem = f"no row of train is left: the weights draw none of its {len(rows):,} pairs"
        raise EmptyError("E120", "inputs", problem, "raise the weight of a source")
    tasks, shards, start = {}, list(made.shards), 0
    for number, own in zip(np.flatnonzero(is_train).tolist(), places, strict=True):
        order = _order(copies[start : start + len(own)], own["group_id_hi"].to_numpy())
        tasks[number] = MixTask(made.tasks[number], shards[number], order)
        start += len(own)
    known = {one.task.name: staging.known(_step(one), SHARD_STATS) for one in tasks.values()}

    def item(one: MixTask) -> MixTask | Done[ShardResult]:
        done = known[one.task.name]
        return one if done is None else Done(ShardResult(one.task.name, done[1], done[0]))

    with progress.bar("mixture", len(tasks)) as advance:
        results = workers.map(write_mixed, map(item, tasks.values()))
        for (number, one), result in zip(tasks.items(), results, strict=True):
            if known[one.task.name] is None:
                staging.record(_step(one), result.files, result.facts)
            shards[number] = result
            advance(1)
    final = [task._replace(is_part=False) for task in made.tasks]
    orders = {number: one.order for number, one in tasks.items()}
    not_drawn = rows["at"].filter(pl.Series(copies == 0))
    paths = [_write_not_drawn(found.root, not_drawn)] if len(not_drawn) else []
    return BuiltShards(final, shards, orders, not_drawn.to_list(), paths, mixture)


def _write_not_drawn(root: Path, rows: pl.Series) -> Path:
    """Write the pairs that are drawn no time as a run of LATE."""
    path = part_path(root, "00000", "undrawn")
    late = pl.DataFrame({KEY: rows.cast(pl.UInt64)})
    write_run(path, late.with_columns(code=pl.lit("PD410"), message=pl.lit(NOT_DRAWN)))
    return path


def write_mixed(one: MixTask) -> ShardResult:
    """Write one shard with its rows in the order of the mixture."""
    task, final = one.task, one.task._replace(is_part=False)
    rows = one.made.facts.rows
    tokens = read_shard(task.root / task.tokens_path, rows=rows).take(pa.array(one.order))
    texts = parquet.ParquetFile((task.root / task.text_path).absolute()).read()

    def write(path: Path) -> None:
        with open_parquet(path, texts.schema) as writer:
            for start in range(0, max(len(one.order), 1), _SLICE_ROWS):
                some = pa.array(one.order[start : start + _SLICE_ROWS])
                writer.write_table(texts.take(some))

    files = {
        final.tokens_path: stage_shard(task.root / final.tokens_path, tokens, rows=tokens.num_rows),
        final.text_path: write_staged(task.root / final.text_path, write),
    }
    unmixed = ("refused", "first_refused", "findings", "first", "note")
    kept = {name: getattr(one.made.facts, name) for name in unmixed}
    return ShardResult(task.name, measure_shard([tokens])._replace(**kept), files)


def _step(one: MixTask) -> str:
    return f"mixed {one.task.name}"


def _draw(
    rows: pl.DataFrame, found: ScanResult, seed: int
) -> tuple[NDArray[np.int64], list[SourceMix]]:
    """Return how often each pair of train is written, and the counts of each source."""
    sources = rows["source_index"].to_numpy()
    key = mix(np.array([seed, 410], np.uint64))
    ids = [rows[name].to_numpy() for name in ("pair_id_hi", "pair_id_lo")]
    rank = mix(mix(ids[0] ^ key[0]) ^ ids[1] ^ key[1])
    copies, mixture = np.zeros(len(rows), np.int64), []
    for files in _by_source([file.file for file in found.files]):
        weight = files[0].of.weight
        own = np.flatnonzero(np.isin(sources, [file.index for file in files]))
        total = int(np.floor(weight * len(own) + 0.5))
        whole = int(weight)
        copies[own] = whole
        first = np.lexsort((ids[1][own], ids[0][own], rank[own]))
        copies[own[first[: total - whole * len(own)]]] += 1
        if len(own) or weight != 1:
            name = files[0].of.name or files[0].source
            mixture.append(SourceMix(name=name, weight=weight, pairs=len(own), rows=total))
    return copies, mixture


def _by_source(files: Sequence[InputFile]) -> list[list[InputFile]]:
    """Return the files of each source of the config, in order."""
    found: dict[tuple[str, float], list[InputFile]] = {}
    for file in files:
        found.setdefault((file.of.key, file.of.weight), []).append(file)
    return list(found.values())


def _order(copies: NDArray[np.int64], groups: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rows of a shard: group by group, in each copy by copy, in each row by row.

    >>> _order(np.array([3, 2, 1, 0, 2]), np.array([7, 7, 7, 8, 9], np.uint64)).tolist()
    [0, 1, 2, 0, 1, 0, 4, 4]
    """
    rows = np.repeat(np.arange(len(copies)), copies)
    starts = np.cumsum(copies) - copies
    copy = np.arange(len(rows)) - starts[rows]
    is_new = np.ones(len(groups), np.int64)
    is_new[1:] = groups[1:] != groups[:-1]
    return rows[np.lexsort((rows, copy, np.cumsum(is_new)[rows]))]
