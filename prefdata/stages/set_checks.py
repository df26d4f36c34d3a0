"""Dataset-level checks over the kept records, bucket by bucket, and their order in the build.

parts/N.order.arrow         the kept records of bucket N by the first record of their prompt
parts/N.completions.arrow   their completions, by completion (PD407)
parts/N.threads.arrow       their threads, by thread (PD504)
parts/N.often.arrow         records with a completion that answers too many prompts
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from prefdata.check import RowChecks
from prefdata.check.catalog import Severity
from prefdata.check.limits import CheckLimits
from prefdata.check.sets.bias import find_label_imbalance
from prefdata.check.sets.found import RowSums, SetFinding, add_sums, rows_in
from prefdata.check.sets.leaks import count_threads
from prefdata.check.sets.prompts import completions_of, frequent_completions
from prefdata.check.sets.run import OF_PROMPTS, conclude, settle_findings
from prefdata.check.sets.tally import Tally
from prefdata.check.sets.triggers import strongest_triggers
from prefdata.engine import Engine
from prefdata.engine.exchange import (
    KEY,
    Bucket,
    Parts,
    cut_buckets,
    cut_rows,
    find_keys,
    part_path,
    read_bucket,
    read_parts,
    write_run,
)
from prefdata.hashing import mix
from prefdata.read import LineCounts
from prefdata.records.keys import GROUP_ID
from prefdata.report.figures import listed
from prefdata.report.model import Groups
from prefdata.stages.chunk import ChunkResult
from prefdata.stages.decide import Decisions, bucket_paths, read_kept
from prefdata.stages.settle import kept_keys
from prefdata.stages.split import SplitPlan
from prefdata.store.manifest import Reading

_SHOWN = 5  # columns listed in a message
ORDER = {
    "at": pl.Int64,
    "final": pl.UInt8,
    "source_index": pl.Int32,
    "line": pl.Int64,
    "pair_id_hi": pl.UInt64,
    "pair_id_lo": pl.UInt64,
    "group_id_hi": pl.UInt64,
}


class CheckTask(NamedTuple):
    """Inputs of a worker for the kept records of one bucket."""

    root: Path
    number: int
    bucket: Bucket
    decisions: Decisions
    severity: Mapping[str, Severity]
    limits: CheckLimits
    is_divided: bool
    """True if the inputs have splits."""
    plan: SplitPlan | None
    """Splits of the build; None for a validation."""

    @property
    def about(self) -> str:
        return f"the prompts of bucket {self.number}"

    def path(self, kind: str) -> Path:
        return part_path(self.root, f"{self.number:05d}", kind)

    def asks(self, code: str) -> bool:
        return self.severity[code] != "off"


class Checked(NamedTuple):
    """Sums over the kept records of a bucket, or of all."""

    counted: dict[str, RowSums]
    groups: Groups | None
    """None without pairs."""
    stuck: int = 0
    """Pairs of clusters that are too large for test."""
    clusters: int = 0
    """Clusters of near-duplicate prompts."""
    leaked: int = 0
    """Clusters in two splits of the build."""
    largest: int = 0
    """Prompts of the largest cluster."""


class SideTask(NamedTuple):
    """Inputs of a worker for one bucket of completions, or of threads."""

    root: Path
    number: int
    bucket: Bucket
    num_runs: int
    limits: CheckLimits

    @property
    def about(self) -> str:
        return f"the completions of bucket {self.number}"


def check_all(task: CheckTask, workers: Engine) -> Checked:
    """Return the sums over all buckets; `task` is that of any bucket."""
    buckets = cut_buckets(read_parts(task.root).num_rows)
    tasks = (task._replace(number=number, bucket=one) for number, one in enumerate(buckets))
    found = list(workers.map(check_bucket, tasks))
    codes = found[0].counted
    counted = {code: add_sums(one.counted[code] for one in found) for code in codes}
    if task.asks("PD407"):
        counted["PD407"] = _boilerplate(task, len(buckets), workers)
    if task.is_divided and task.asks("PD504"):
        sides = _side_tasks(task, task.decisions.num_kept, len(buckets))
        counted["PD504"] = add_sums(workers.map(check_threads, sides))
    groups = _add_groups(one.groups for one in found if one.groups)
    stuck, clusters, leaked = (
        sum(getattr(one, name) for one in found) for name in ("stuck", "clusters", "leaked")
    )
    return Checked(counted, groups, stuck, clusters, leaked, max(one.largest for one in found))


def check_bucket(task: CheckTask) -> Checked:
    """Count what the pairs of the prompts of one bucket have, and write their order."""
    kept = read_kept(task.root, task.number, task.bucket, task.decisions)
    counted = {
        code: count(kept, task.limits) for code, count in OF_PROMPTS.items() if task.asks(code)
    }
    if task.asks("PD407"):
        sides = completions_of(kept)
        write_run(task.path("completions"), _keyed(sides, "completion"))
    if task.is_divided and task.asks("PD504"):
        threads = kept.filter(pl.col("thread") != 0).select("at", "split", "thread")
        write_run(task.path("threads"), _keyed(threads, "thread"))
    if task.plan is None:
        return Checked(counted, _groups(kept))
    split, split_key = kept["split"].to_numpy(), kept["split_key"].to_numpy()
    rows = kept.with_columns(
        final=pl.Series(task.plan.assign(split, split_key)),
        first=pl.col("at").first().over(GROUP_ID),
    )
    order = rows.select(pl.col("first").cast(pl.UInt64).alias(KEY), *ORDER)
    write_run(task.path("order"), order)
    clusters = rows.group_by("split_key").agg(
        pl.col("final").n_unique(), size=pl.struct(GROUP_ID).n_unique()
    )
    return Checked(
        counted,
        _groups(kept),
        task.plan.count_stuck(split, split_key),
        len(clusters),
        int((clusters["final"] > 1).sum()),
        int(clusters["size"].max() or 0),  # type: ignore[arg-type]
    )


def _keyed(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.with_columns(pl.Series(KEY, mix(rows[name].to_numpy()), dtype=pl.UInt64))


def _side_tasks(task: CheckTask, num_rows: int, num_runs: int) -> Iterator[SideTask]:
    for number, bucket in enumerate(cut_buckets(num_rows)):
        yield SideTask(task.root, number, bucket, num_runs, task.limits)


def _boilerplate(task: CheckTask, num_runs: int, workers: Engine) -> RowSums:
    """Return the sums of the records with a completion that answers too many prompts."""
    tasks = list(_side_tasks(task, 2 * task.decisions.num_kept, num_runs))
    total = add_sums(workers.map(check_completions, tasks))
    if not total.groups:
        return total
    paths = bucket_paths(task.root, "often", len(tasks))
    ranges = cut_rows(read_parts(task.root).num_rows)
    named = (read_bucket(paths, rows)["at"].unique() for rows in ranges)
    return add_sums([total, *map(rows_in, named)])


def check_completions(task: SideTask) -> RowSums:
    """Count the completions of one bucket that answer too many prompts, and write their rows."""
    paths = bucket_paths(task.root, "completions", task.num_runs)
    rows, sums = frequent_completions(read_bucket(paths, task.bucket), task.limits)
    often = pl.DataFrame({KEY: rows.unique().cast(pl.UInt64)})
    often = often.with_columns(pl.col(KEY).cast(pl.Int64).alias("at"))
    write_run(part_path(task.root, f"{task.number:05d}", "often"), often)
    return sums


def check_threads(task: SideTask) -> RowSums:
    """Count the rows of the threads of one bucket that are in several splits."""
    paths = bucket_paths(task.root, "threads", task.num_runs)
    return count_threads(read_bucket(paths, task.bucket), task.limits)


class GroupsTask(NamedTuple):
    """Inputs of a worker that counts the prompts of one bucket."""

    root: Path
    number: int
    bucket: Bucket
    decisions: Decisions
    late: tuple[Path, ...]
    """Runs of kept records that are not written."""

    @property
    def about(self) -> str:
        return f"the prompts of bucket {self.number}"


def count_groups(task: GroupsTask) -> Groups:
    """Count distinct prompts and completions of the written pairs of one bucket."""
    rows = read_kept(task.root, task.number, task.bucket, task.decisions)
    for path in task.late:
        known, _ = find_keys(path, rows["at"].to_numpy().astype(np.uint64))
        rows = rows.filter(~pl.Series(known))
    return _groups(rows)


def _groups(rows: pl.DataFrame) -> Groups:
    if rows.is_empty():
        return Groups(groups=0, completions=0, pairs=0)
    sides = completions_of(rows).select(*GROUP_ID, "completion")
    prompts = rows.select(GROUP_ID).n_unique()
    return Groups(groups=prompts, completions=sides.n_unique(), pairs=len(rows))


def count_all_groups(
    root: Path, decisions: Decisions, late: Sequence[Path], workers: Engine
) -> Groups | None:
    """Return the sums over all buckets; None without pairs."""
    buckets = cut_buckets(read_parts(root).num_rows)
    tasks = (GroupsTask(root, *one, decisions, tuple(late)) for one in enumerate(buckets))
    return _add_groups(workers.map(count_groups, tasks))


def _add_groups(found: Iterable[Groups]) -> Groups | None:
    totals = Counter[str]()
    for one in found:
        totals.update(one.model_dump())
    return (
        Groups(**{name: totals[name] for name in Groups.model_fields}) if totals["pairs"] else None
    )


class Kept(NamedTuple):
    """The kept records of a set, part by part, for the few that findings name."""

    parts: Parts
    decisions: Decisions

    def of_source(self, index: int) -> Iterator[pl.DataFrame]:
        """Yield the keys of the kept records of an input."""
        for part in np.flatnonzero(self.parts.sources == index).tolist():
            yield kept_keys(self.parts, self.decisions, part)

    def first_of(self, index: int, line: int = 0) -> list[int]:
        """Return the first record of an input that is at a line or after it, if there is one."""
        for keys in self.of_source(index):
            found = keys.filter(pl.col("line") >= line)
            if len(found):
                return [int(found["at"][0])]
        return []

    def at_lines(self, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
        """Return the first record of each of some lines, by input and line."""
        found: dict[tuple[int, int], int] = {}
        for index in sorted({index for index, _ in places}):
            lines = [line for of, line in places if of == index]
            for keys in self.of_source(index):
                for line, at in keys.filter(pl.col("line").is_in(lines))["line", "at"].iter_rows():
                    found.setdefault((index, line), at)
        return found


def find_together(
    kept: Kept,
    counted: Mapping[str, RowSums],
    tally: Tally,
    parts: Sequence[ChunkResult],
    files: Sequence[tuple[LineCounts, Reading]],
    checks: RowChecks,
) -> list[SetFinding]:
    """Return all dataset-level findings, sorted by code.

    `files` has one item for each input, in order.
    """
    counts = [of_file for of_file, _ in files]
    found = [
        *conclude(counted, tally, checks.severity, checks.limits),
        *_find_drift(kept, counts),
        *_find_unread(kept, [reading for _, reading in files]),
        *find_label_imbalance(
            tally,
            sum(of_file.desirable for of_file in counts),
            sum(of_file.undesirable for of_file in counts),
        ),
        *_find_triggers(kept, parts),
    ]
    return settle_findings(found, checks.severity, checks.changed)


def _find_drift(kept: Kept, counts: Sequence[LineCounts]) -> list[SetFinding]:
    """Find columns that the layout does not name and that a part of a file's rows lacks (PD105)."""
    said, rows, examples = list[str](), 0, list[int]()
    for index, of_file in enumerate(counts):
        num_rows = of_file.lines - of_file.blank - of_file.rejected
        some = {key: num for key, num in of_file.extra_keys.items() if num < num_rows}
        if some:
            said += [f"`{key}` in {num:,} of {num_rows:,} rows" for key, num in some.items()]
            rows += max(min(num, num_rows - num) for num in some.values())
            changes = min(of_file.drift.lines.get(key, 1) for key in some)
            examples += kept.first_of(index, changes) or kept.first_of(index)
    message = f"schema_drift: {listed(said, _SHOWN)}"
    return [SetFinding("PD105", rows, tuple(examples), message)] if said else []


def _find_unread(kept: Kept, readings: Sequence[Reading]) -> list[SetFinding]:
    """Find columns that the layout does not read although training can use them (PD110)."""
    said: dict[str, str] = {}
    rows, examples = 0, list[int]()
    for index, reading in enumerate(readings):
        named = [column for column in reading.not_read if column.means]
        if named:
            said |= {column.name: f"`{column.name}` ({column.means})" for column in named}
            rows += max(column.rows for column in named)
            examples += kept.first_of(index)
    columns = listed(list(said.values()), _SHOWN)
    message = f"the layout does not read {columns}, so it does not affect training"
    return [SetFinding("PD110", rows, tuple(examples), message)] if said else []


def _find_triggers(kept: Kept, parts: Sequence[ChunkResult]) -> list[SetFinding]:
    """Find possible backdoor triggers, each with the first row that has it (PD608)."""
    seeds = strongest_triggers(part.facts.seeds for part in parts)
    if not seeds:
        return []
    places = [seed.first[0] for seed in seeds]
    found = kept.at_lines(places)
    examples = tuple(found[place] for place in places if place in found)
    message = "; ".join(map(str, seeds))
    return [SetFinding("PD608", len(seeds), examples, message)]


def note_copies(own: Mapping[int, str], copies: Mapping[int, int]) -> Iterator[str]:
    """Yield a sentence on copies in the text of a build, which only a mixture writes there.

    `own` are the files with such text, by index in the inputs; `copies` are the copies in each
    file of rows of the same.
    """
    same = {index: num for index, num in sorted(copies.items()) if index in own}
    if same:
        yield (
            f"{listed([own[index] for index in same], 3)}: text of a mixture, read "
            f"with each pair once: its {sum(same.values()):,} further copies are dropped (PD401); "
            "to train on the mixture, use its build, or give its sources with their weights again"
        )
