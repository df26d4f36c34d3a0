"""Decisions on all records, bucket by bucket, and their events: the rows that something befalls.

    parts/NAME.route.arrow        a part's keys, with split, cluster and exclusion of each record
    parts/N.kept.arrow            the records that bucket N keeps
    parts/N.events.arrow          what bucket N decides: a run of EVENTS by row
    parts/N.late-rows.arrow       where near-duplicates are compared by another text than prompts:
    parts/N.late-copies.arrow     kept records and copies, sent to the buckets of its clusters
    parts/N.late-gone.arrow       the records that those drop

A bucket has all rows of its prompts and of the prompts near to them, so `decide` says of them what
it would say of all rows at once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from prefdata.dedup.near import NearDuplicates, Neighbors, Unit, near_copies
from prefdata.dedup.near.bands import clusters_of, sets_of
from prefdata.engine import Engine
from prefdata.engine.exchange import (
    EVERYTHING,
    KEY,
    Bucket,
    Parts,
    cut_buckets,
    part_path,
    read_bucket,
    read_parts,
    write_run,
)
from prefdata.hashing import mix
from prefdata.records.keys import KEY_COLUMNS, PAIR_ID
from prefdata.records.split_names import Leaks
from prefdata.stages.chunk import read_keys, read_narrow
from prefdata.stages.events import (
    CONTRADICTORY,
    COPY,
    EVENTS,
    EXCLUDED,
    LEAKED,
    NEAR,
    OF_KEPT,
    REPORTED,
    events_of,
)
from prefdata.stages.filter import (
    EXCLUSIONS,
    NEAR_DUPLICATES,
    FilterResult,
    Near,
    decide,
    stage,
)
from prefdata.stages.split import Splits
from prefdata.store.manifest import FunnelStage

_ROUTED: dict[str, type[pl.DataType]] = {
    KEY: pl.UInt64,
    "at": pl.Int64,
    "source_index": pl.Int32,
    **KEY_COLUMNS,
    "split": pl.UInt8,
    "thread": pl.UInt64,
    "split_key": pl.UInt64,
    "cluster": pl.Int64,
    "late_cluster": pl.Int64,
    "excluded": pl.Boolean,
}


class DecideOptions(NamedTuple):
    """Options of the decisions, the same for all tasks."""

    severity: Mapping[str, str]
    splits: Splits
    leaks: Leaks
    near: NearDuplicates | None = None
    only_leaks: bool = False
    """True if near-duplicates are needed only for leaks between splits."""

    @property
    def late_unit(self) -> Unit | None:
        """Return the unit by which near-duplicates are dropped, if it is not the prompt."""
        if self.near is None or self.only_leaks or self.near.unit == "prompt":
            return None
        return self.near.unit


class RouteTask(NamedTuple):
    """Inputs of a worker for the keys of one part."""

    root: Path
    part: int
    options: DecideOptions
    exclusions: pl.DataFrame | None

    @property
    def about(self) -> str:
        return f"the keys of part {self.part}"


class BucketTask(NamedTuple):
    """Inputs of a worker for the decisions of one bucket."""

    root: Path
    number: int
    bucket: Bucket
    options: DecideOptions
    num_runs: int = 0

    @property
    def about(self) -> str:
        return f"the decisions of bucket {self.number}"


class Decided(NamedTuple):
    """Sums over the decisions of one bucket."""

    funnel: list[FunnelStage]
    kept_of_splits: list[int]
    """Kept rows of each split; of all inputs, if they are one set."""
    own_copies: dict[int, int]
    """Copies of a row of the same input, by input."""


class Decisions(NamedTuple):
    """Sums over all decisions; their events are in files."""

    num_buckets: int
    late: bool
    rows_of_splits: list[int]
    """Rows of each split before any was dropped."""
    kept_of_splits: list[int]
    own_copies: dict[int, int]
    funnel: list[FunnelStage]

    @property
    def num_kept(self) -> int:
        return sum(self.kept_of_splits)

    def paths(self, root: Path, kind: str) -> list[Path]:
        """Return the files of one kind of all buckets."""
        return bucket_paths(root, kind, self.num_buckets)

    def event_paths(self, root: Path) -> list[Path]:
        late = bucket_paths(root, "late-events", self.num_buckets) if self.late else []
        return self.paths(root, "events") + late


def bucket_paths(root: Path, kind: str, number: int) -> list[Path]:
    return [part_path(root, f"{place:05d}", kind) for place in range(number)]


def decide_all(
    root: Path, options: DecideOptions, exclusions: pl.DataFrame | None, workers: Engine
) -> Decisions:
    """Decide on all records, of which the clusters are known."""
    parts = read_parts(root)
    tasks = (RouteTask(root, part, options, exclusions) for part in range(len(parts.names)))
    rows = _add(workers.map(route, tasks))
    buckets = cut_buckets(parts.num_rows)
    found = list(
        workers.map(decide_bucket, (BucketTask(root, *one, options) for one in enumerate(buckets)))
    )
    funnel, kept = _funnel(found), _add(one.kept_of_splits for one in found)
    if options.late_unit:
        late = list(
            workers.map(
                decide_late,
                (BucketTask(root, *one, options, len(buckets)) for one in enumerate(buckets)),
            )
        )
        kept = _add(one.kept_of_splits for one in late)
        funnel = [one for one in funnel if one.stage != NEAR_DUPLICATES] + _funnel(late)
    own = Counter[int]()
    for one in found:
        own.update(one.own_copies)
    return Decisions(len(buckets), bool(options.late_unit), rows, kept, own, funnel)


def _add(sums: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*sums, strict=True)]


def _funnel(found: Sequence[Decided]) -> list[FunnelStage]:
    """Return the sums of each stage; that of exclusions is there only if there are any."""
    total = []
    for stages in zip(*(one.funnel for one in found), strict=True):
        dropped = Counter[str]()
        for one in stages:
            dropped.update(one.dropped)
        if dropped or stages[0].stage != EXCLUSIONS:
            rows_in, rows_out = (
                sum(getattr(o, n) for o in stages) for n in ("rows_in", "rows_out")
            )
            total.append(stage(stages[0].stage, rows_in, rows_out, dropped))
    return total


def route(task: RouteTask) -> list[int]:
    """Write a part's keys for the buckets; return the number of its rows in each split."""
    options, parts = task.options, read_parts(task.root)
    keys, profile = read_keys(parts, task.part), read_narrow(parts, task.part, "profile")
    split = np.zeros(len(keys), np.uint8)
    if options.splits.is_divided:
        source = int(parts.sources[task.part])
        split = options.splits.of_rows(source, profile["said_split"])
    keys = _excluded(keys, task.exclusions).with_columns(
        split=pl.Series(split), thread=profile["thread"], split_key="group_id_hi", cluster="at"
    )
    if options.near is not None:
        found = clusters_of(parts, task.part, "prompt")
        keys = keys.with_columns(
            cluster=pl.Series(found.labels), split_key=pl.Series(found.least, dtype=pl.UInt64)
        )
    if unit := options.late_unit:
        late = clusters_of(parts, task.part, unit).labels
        keys = keys.with_columns(late_cluster=pl.Series(late))
    hashed = pl.Series(mix(keys["split_key"].to_numpy()), dtype=pl.UInt64)
    write_run(parts.path_of(task.part, "route"), keys.with_columns(hashed.alias(KEY)))
    counts: list[int] = np.bincount(split, minlength=_num_splits(options)).tolist()
    return counts


def _num_splits(options: DecideOptions) -> int:
    return max(len(options.splits.names), 1)


def _excluded(keys: pl.DataFrame, ids: pl.DataFrame | None) -> pl.DataFrame:
    if ids is None:
        return keys.with_columns(excluded=pl.lit(value=False))
    marked = ids.with_columns(excluded=pl.lit(value=True))
    found = keys.join(marked, on=PAIR_ID, how="left", maintain_order="left")
    return found.with_columns(pl.col("excluded").fill_null(value=False))


def decide_bucket(task: BucketTask) -> Decided:
    """Decide on the rows of one bucket, and write its kept rows and its events."""
    options, parts = task.options, read_parts(task.root)
    runs = parts.paths("route")
    rows = read_bucket(runs, task.bucket) if runs else pl.DataFrame(schema=_ROUTED)
    rows = rows.sort("at")
    near = None
    if options.near is not None:
        only_leaks = options.only_leaks or options.late_unit is not None
        by_unit: dict[Unit, Neighbors] = {
            "prompt": _neighbors(task.root, "prompt", rows, "cluster")
        }
        near = Near(options.near, by_unit, only_leaks)
    split = rows["split"].to_numpy() if options.splits.is_divided else None
    keys = rows.select(*KEY_COLUMNS, "excluded")
    found = decide(keys, options.severity, near, split, options.leaks)
    kept = rows.filter(pl.Series(found.kept_mask))
    events = _events(found, rows)
    if options.late_unit:
        is_copy = pl.col("kind") == COPY
        copies = events.filter(is_copy).with_columns(_late_key(rows, events.filter(is_copy)["at"]))
        write_run(_path(task, "late-copies"), copies)
        write_run(_path(task, "late-rows"), kept.with_columns(_late_key(kept, kept["at"])))
        events = events.filter(~is_copy)
    write_run(_path(task, "kept"), kept)
    write_run(_path(task, "events"), events)
    return Decided(found.funnel, _by_split(kept, options), _own_copies(found, rows))


def _neighbors(root: Path, unit: Unit, rows: pl.DataFrame, clusters: str) -> Neighbors:
    at = rows["at"].to_numpy()
    return Neighbors(rows[clusters].to_numpy(), lambda some: sets_of(root, unit, at[some]))


def _path(task: BucketTask, kind: str) -> Path:
    return part_path(task.root, f"{task.number:05d}", kind)


def _late_key(rows: pl.DataFrame, at: pl.Series) -> pl.Series:
    """Return the key of the buckets of late clusters, of the rows with these indices."""
    own = pl.DataFrame({"at": at}).join(
        rows.select("at", "late_cluster"), on="at", how="left", maintain_order="left"
    )
    return pl.Series(KEY, mix(own["late_cluster"].to_numpy().astype(np.uint64)), dtype=pl.UInt64)


def _by_split(kept: pl.DataFrame, options: DecideOptions) -> list[int]:
    counts: list[int] = np.bincount(kept["split"], minlength=_num_splits(options)).tolist()
    return counts


def _own_copies(found: FilterResult, rows: pl.DataFrame) -> dict[int, int]:
    sources = rows["source_index"]
    own, kept = sources[found.copies["at"]], sources[found.copies["kept"]]
    return dict(own.filter(own == kept).value_counts().iter_rows())


def _events(found: FilterResult, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the events of a bucket; `found` has indices in its rows."""
    copies = found.copies.select("at").join(found.duplicates, on="at", how="left")
    near = found.near.with_columns(dropped=~pl.Series(found.kept_mask)[found.near["at"]])
    excluded, contradictory = found.excluded, found.contradictory
    said = [
        pl.DataFrame({"at": excluded}).with_columns(kind=pl.lit(EXCLUDED), dropped=True),
        found.leaks.with_columns(kind=pl.lit(LEAKED)),
        pl.DataFrame({"at": contradictory}).with_columns(kind=pl.lit(CONTRADICTORY), dropped=True),
        copies.with_columns(kind=pl.lit(COPY), dropped=True),
        near.with_columns(kind=pl.lit(NEAR)),
        *(
            pl.DataFrame({"at": at}).with_columns(
                kind=pl.lit(REPORTED), code=pl.lit(code), dropped=False
            )
            for code, at in found.reported.items()
        ),
    ]
    places = [one.with_columns(pl.col("at").cast(pl.UInt32)) for one in said]
    return events_of(pl.concat(places, how="diagonal"), rows)


def decide_late(task: BucketTask) -> Decided:
    """Drop near-duplicates by another unit than prompts, in one bucket of its clusters."""
    options, unit = task.options, task.options.late_unit
    assert options.near is not None
    assert unit is not None
    runs = bucket_paths(task.root, "late-rows", task.num_runs)
    rows = read_bucket(runs, task.bucket).sort("at")
    near = _neighbors(task.root, unit, rows, "late_cluster")
    if options.splits.is_divided:
        near = near.within(rows["split"].to_numpy())
    everything = np.ones(len(rows), np.bool_)
    longest = options.near.keep == "longest"
    found = near_copies(near, everything, groups=None, longest=longest)
    drops = options.severity["PD402"] == "E"
    said = found.with_columns(kind=pl.lit(NEAR), dropped=pl.lit(drops))
    events = events_of(said.with_columns(pl.col("at").cast(pl.UInt32)), rows)
    gone = events["at"] if drops else events["at"].clear()
    left = rows.filter(~pl.col("at").is_in(gone.implode()))
    lost = rows.filter(pl.col("at").is_in(gone.implode()))
    split_key = pl.Series(KEY, mix(lost["split_key"].to_numpy()), dtype=pl.UInt64)
    write_run(_path(task, "late-gone"), lost.select("at").with_columns(split_key))
    copies = read_bucket(bucket_paths(task.root, "late-copies", task.num_runs), task.bucket)
    copies = _moved(copies, events.filter("dropped"))
    write_run(_path(task, "late-events"), pl.concat([events, copies]))
    funnel = [stage(NEAR_DUPLICATES, len(rows), len(left), {"PD402": len(gone)})]
    return Decided(funnel, _by_split(left, options), {})


def _moved(copies: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    """Return the events of copies; one of a dropped pair is a copy of what is kept for that."""
    names = ("similarity", "kept", *OF_KEPT)
    beyond = gone.select(pl.col("at").alias("via"), *(pl.col(n).alias(f"last_{n}") for n in names))
    found = copies.join(beyond, left_on="kept", right_on="via", how="left")
    moved = found.with_columns(pl.coalesce(f"last_{name}", name).alias(name) for name in names)
    keyed = moved.with_columns(pl.col("at").cast(pl.UInt64).alias(KEY))
    return keyed.select(pl.col(name).cast(kind) for name, kind in EVENTS.items())


def read_kept(task_root: Path, number: int, bucket: Bucket, decisions: Decisions) -> pl.DataFrame:
    """Return the records that a bucket keeps, after all decisions, by row."""
    kept = read_bucket([part_path(task_root, f"{number:05d}", "kept")], EVERYTHING)
    if decisions.late:
        gone = read_bucket(decisions.paths(task_root, "late-gone"), bucket)
        kept = kept.join(gone, on="at", how="anti")
    return kept.sort("at")


def read_events(parts: Parts, decisions: Decisions, rows: Bucket) -> pl.DataFrame:
    """Return the events of a range of rows, by row."""
    found = read_bucket(decisions.event_paths(parts.root), rows)
    return found.sort("at", maintain_order=True)
