"""The road that `build` and `validate` share: files to records that are checked and distinct."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from prefdata.arrays import empty_table
from prefdata.check import CHECKS, check_rows, find_rows
from prefdata.dedup import DUPLICATES, drop_contradictions, drop_duplicates
from prefdata.engine.local import map_items
from prefdata.progress import Progress
from prefdata.read import FileRows, InputFile, Layout, Limits, Pairing, read_file
from prefdata.records import RECORDS, REJECTED
from prefdata.store.manifest import FunnelStage


class ReadTask(NamedTuple):
    """What a process needs to read and check one file."""

    file: InputFile
    layout: Layout | None
    pairing: Pairing
    limits: Limits
    severity: Mapping[str, str]
    control_tokens: tuple[str, ...]


class CheckedFile(NamedTuple):
    """One file's records that passed the row checks, and the rows that did not."""

    file: InputFile
    read: FileRows
    kept: pa.Table
    refused: pa.Table
    found: pa.Table
    """What is only reported, one row a finding."""


class Survey(NamedTuple):
    """Everything known before tokens: kept + rejected + duplicates account for every row."""

    files: list[CheckedFile]
    records: pa.Table
    rejected: pa.Table
    duplicates: pa.Table
    found: pa.Table
    funnel: list[FunnelStage]
    notes: list[str]


def read_and_check(task: ReadTask) -> CheckedFile:
    """Read one file and drop the rows that break a rule."""
    rows = read_file(task.file, layout=task.layout, pairing=task.pairing, limits=task.limits)
    severity, control_tokens = task.severity, task.control_tokens
    kept, refused = check_rows(rows.records, severity=severity, control_tokens=control_tokens)
    found = find_rows(kept, severity=severity, control_tokens=control_tokens)
    return CheckedFile(task.file, rows._replace(records=empty_table(RECORDS)), kept, refused, found)


def survey(tasks: Sequence[ReadTask], *, workers: int, progress: Progress) -> Survey:
    """Read every file, check its rows, and drop what is there twice or contradicts itself."""
    severity = tasks[0].severity
    with progress.bar("reading", len(tasks)) as advance:
        files = map_items(read_and_check, tasks, workers=workers, on_done=lambda _: advance(1))
    unread = pa.concat_tables([f.read.rejected for f in files])
    read = pa.concat_tables([f.kept for f in files])
    refused = pa.concat_tables([f.refused for f in files])
    num_read = read.num_rows + refused.num_rows

    distinct, duplicates = read, empty_table(DUPLICATES)
    if _level("PD401", severity) in ("E", "W"):
        distinct, duplicates = drop_duplicates(read)
    records, contradictory = drop_contradictions(distinct)
    found = [f.found for f in files]
    if _level("PD403", severity) != "E":
        if _level("PD403", severity) == "W":
            found.append(contradictory)
        records, contradictory = distinct, empty_table(REJECTED)

    num_rows = sum(f.read.counts.lines - f.read.counts.blank for f in files)
    return Survey(
        files,
        records,
        pa.concat_tables([unread, refused, contradictory]),
        duplicates,
        pa.concat_tables(found),
        [
            stage("read", num_rows, num_read, count_codes(unread)),
            stage("check", num_read, read.num_rows, count_codes(refused)),
            stage("duplicates", read.num_rows, distinct.num_rows, {"PD401": duplicates.num_rows}),
            stage(
                "contradictions", distinct.num_rows, records.num_rows, count_codes(contradictory)
            ),
        ],
        [f"{f.file.name}: {note}" for f in files for note in f.read.notes],
    )


def stage(name: str, rows_in: int, rows_out: int, dropped: Mapping[str, int]) -> FunnelStage:
    counts = {code: count for code, count in sorted(dropped.items()) if count}
    return FunnelStage(stage=name, rows_in=rows_in, rows_out=rows_out, dropped=counts)


def count_codes(rejected: pa.Table) -> dict[str, int]:
    """Rows by code."""
    counts = pc.value_counts(rejected["code"])
    return {item["values"]: item["counts"] for item in counts.to_pylist()}


def _level(code: str, severity: Mapping[str, str]) -> str:
    return severity.get(code, CHECKS[code].severity)
