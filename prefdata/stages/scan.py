"""Stage that `build` and `validate` share: from files to checked, distinct records."""

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from prefdata.check import RowChecks
from prefdata.check.sets.found import SetFinding
from prefdata.check.severity import changed_severities
from prefdata.dedup.near import NearDuplicates
from prefdata.dedup.near.bands import find_all_clusters
from prefdata.engine import Done, Engine
from prefdata.engine.exchange import EVERYTHING, Parts, cut_rows, read_parts, write_parts
from prefdata.errors import UsageError
from prefdata.progress import Progress
from prefdata.read import (
    Columns,
    Fitted,
    InputFile,
    LineCounts,
    OpenFile,
    RowOptions,
    TextChoice,
    TextRule,
    load_layout,
    meaning_of,
    notes_of,
    open_rows,
)
from prefdata.records.findings import Level, Location, counts, merge_counts
from prefdata.records.split_names import SPLIT_KEYS, SplitOptions
from prefdata.records.text import ELEMENT_LINE
from prefdata.stages.chunk import ChunkResult, ChunkTask, build_chunk, read_keys, recall_chunk
from prefdata.stages.decide import DecideOptions, Decisions, decide_all, read_events
from prefdata.stages.filter import stage
from prefdata.stages.set_checks import (
    Checked,
    CheckTask,
    Kept,
    check_all,
    find_together,
    note_copies,
)
from prefdata.stages.settle import Settled, settle_all
from prefdata.stages.split import (
    Draw,
    SaidRows,
    SplitPlan,
    Splits,
    mixed,
    settle_splits,
    splits_of_files,
)
from prefdata.store.manifest import ColumnNotRead, FunnelStage, Reading
from prefdata.store.staging import Staging

OWN_TEXT = ("prefdata", "prefdata-text")
"""The layouts of a build's own text shards."""


class ScanOptions(NamedTuple):
    """Options for reading and checking the inputs."""

    rows: RowOptions
    """Options of each file's rows; without a layout, it is detected from the columns."""
    checks: RowChecks
    exclusions: pl.DataFrame | None = None
    """Ids of excluded pairs, as columns PAIR_ID."""
    near: NearDuplicates | None = None
    """Options of near-duplicates; None: they are not searched for."""
    text: TextRule = TextRule()
    """Rule by which plain text becomes a chat or stays verbatim."""
    splits: SplitOptions = SplitOptions()
    """Splits of the files, and the policy for pairs that two of them share."""
    near_for_leaks: bool = False
    """True if near-duplicates are needed only for leaks between splits, because PD402 is off."""
    columns: Columns = Columns()
    """Names of the columns of prompt, chosen and rejected, if they are not the usual ones."""
    has_texts: bool = True
    """False if only counts are needed, so that no record is written."""
    draw: Draw | None = None
    """The split that a build draws; None for a validation, which has no order of its pairs."""


class SurveyedFile(NamedTuple):
    """Facts about one input that was read."""

    file: InputFile
    layout: str
    size_bytes: int
    sha256: str
    counts: LineCounts
    notes: tuple[str, ...]
    reading: Reading = Reading()
    text: TextChoice | None = None
    """Form in which its plain text was read; None for dialogues."""
    is_gathered: bool = False
    """True if its chunks are of rows by prompt or tree, not of rows in the file's order."""
    element_lines: "array[int] | None" = None
    """Line of each element, if the file is a JSON array."""


class ScanResult(NamedTuple):
    """Everything known before tokenization: every row is a record, or rejected with a code.

    Rows, and what was decided on each, are in the files of `root`; here are sums.
    """

    root: Path
    files: list[SurveyedFile]
    parts: list[ChunkResult]
    splits: Splits
    decisions: Decisions
    settled: Settled
    checked: Checked
    plan: SplitPlan | None
    """The splits of a build."""
    of_set: list[SetFinding]
    """Dataset-level findings over the kept records."""
    funnel: list[FunnelStage]
    notes: list[str]
    near_level: Level
    """W if near-duplicates are reported, I if they are only counted."""

    @property
    def num_pairs(self) -> int:
        """Return the number of pairs that were read, kept or not."""
        return sum(file.counts.pairs for file in self.files)

    def location(self, index: int, row: int, message: str = "", offset: int = -1) -> Location:
        """Return the place of a row, by the index of its file and its number there.

        The number of an element of a JSON array is not its line.
        """
        file = self.files[index]
        lines, name = file.element_lines, file.file.source
        if lines is None:
            return Location(name, row, message, offset)
        return Location(name, lines[row - 1], message, offset, row)

    def places_of(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return the input and the line of a few records, by their indices."""
        parts = read_parts(self.root)
        found: dict[int, list[int]] = {}
        numbers, _ = parts.locate(np.array(rows, np.int64))
        for part in set(numbers.tolist()):
            keys = read_keys(parts, part).filter(pl.col("at").is_in(list(rows)))
            found |= {at: place for at, *place in keys["at", "source_index", "line"].iter_rows()}
        return [(found[row][0], found[row][1]) for row in rows]

    def events(self) -> Iterator[pl.DataFrame]:
        """Yield the events of all rows, range by range, by row."""
        parts = read_parts(self.root)
        for rows in cut_rows(parts.num_rows):
            yield read_events(parts, self.decisions, rows)

    def element_lines(self, places: pl.DataFrame) -> pl.DataFrame | None:
        """Return the lines of the elements of JSON arrays among some rows.

        `places` have `source_index` and `line`, the element's number. Columns: these and
        `element_line`; None if no input is a JSON array.
        """
        arrays = {f.file.index: f.element_lines for f in self.files if f.element_lines is not None}
        if not arrays:
            return None
        places = places.select("source_index", "line").unique(maintain_order=True)
        places = places.filter(pl.col("source_index").is_in(list(arrays)))
        lines = [arrays[index][number - 1] for index, number in places.iter_rows()]
        return places.with_columns(pl.Series(ELEMENT_LINE, lines, pl.Int64))


def scan(
    files: Sequence[InputFile],
    options: ScanOptions,
    *,
    workers: Engine,
    staging: Staging,
    progress: Progress,
) -> ScanResult:
    """Read every file, check its rows, and drop duplicates and contradictions."""
    root = staging.root.absolute()
    reading = _Reading(files, options, root, staging)
    parts = _read(reading, workers, progress)
    found = [
        _surveyed(opened, fitted, parts, reading.texts.get(opened.file.index))
        for opened, fitted in reading.opened
    ]
    _require_text(found, options.text)
    named = [(part.name, part.source_index, part.facts.rows) for part in parts]
    write_parts(Parts.of(root, named))
    splits = _splits(found, parts, options.splits)
    found = [_with_split(file, splits) for file in found]
    near, severity = options.near, options.checks.severity
    if near is not None and parts:
        find_all_clusters(root, near, workers)
    how = DecideOptions(severity, splits, options.splits.leaks, near, options.near_for_leaks)
    decisions = decide_all(root, how, options.exclusions, workers)
    settled = settle_all(root, decisions, options.checks.examples, workers)
    plan = options.draw and options.draw.plan(splits, decisions.kept_of_splits)
    limits, divided = options.checks.limits, splits.is_divided
    task = CheckTask(root, 0, EVERYTHING, decisions, severity, limits, divided, plan)
    checked = check_all(task, workers)
    of_files = [(file.counts, file.reading) for file in found]
    kept = Kept(read_parts(root), decisions)
    return ScanResult(
        root,
        found,
        parts,
        splits,
        decisions,
        settled,
        checked,
        plan,
        find_together(kept, checked.counted, settled.tally, parts, of_files, options.checks),
        [*_funnel(found, parts), *decisions.funnel],
        [*_notes(found, decisions), *changed_severities(severity), *splits.notes],
        "I" if severity["PD402"] == "I" else "W",
    )


def _read(reading: "_Reading", workers: Engine, progress: Progress) -> list[ChunkResult]:
    """Make all chunks, and record those that an earlier process had not made."""
    parts = []
    with progress.bar("reading", sum(file.path.stat().st_size for file in reading.files)) as bar:
        for part in workers.map(build_chunk, reading.tasks()):
            if reading.staging is not None and part.name not in reading.known:
                reading.staging.record(part.name, part.files, part.facts)
            parts.append(part)
            bar(reading.take_bytes())
        bar(reading.take_bytes())
    return parts


def stage_chunks(
    files: Sequence[InputFile], options: ScanOptions, names: Collection[str], root: Path
) -> None:
    """Read some chunks again, by name, and write their files below `root`."""
    wanted = set(names)
    for task in _Reading(files, options, root, None).tasks():
        assert isinstance(task, ChunkTask)
        if task.name in wanted:
            build_chunk(task._replace(near=None, has_texts=True))
            wanted.remove(task.name)
        if not wanted:
            return


def _notes(found: Sequence[SurveyedFile], decisions: Decisions) -> Iterator[str]:
    """Yield the notes on how files were found, those on what they contain, and one on copies."""
    yield from (file.file.note for file in found if file.file.note)
    yield from (f"{file.file.source}: {note}" for file in found for note in file.notes)
    own = {file.file.index: file.file.source for file in found if file.layout in OWN_TEXT}
    yield from note_copies(own, decisions.own_copies)


def _splits(
    found: Sequence[SurveyedFile], parts: Sequence[ChunkResult], options: SplitOptions
) -> Splits:
    """Return the splits of the records, by config, by file name, and by split column.

    In a build's own text shards the split column is that of its inputs, so the file name wins.
    """
    if options.resplit:
        return mixed(len(found))
    files = [one.file for one in found]
    by_file = splits_of_files(files, options.given)
    said: list[list[SaidRows]] = [[] for _ in found]
    for part in parts:
        said[part.source_index] += part.facts.said
    for at, one in enumerate(found):
        if one.layout in OWN_TEXT and by_file[at].split:
            said[at] = [(None, num, line) for _, num, line in said[at]]
    return settle_splits([file.source for file in files], by_file, said)


class _Reading:
    """Files in turn, each split into chunk tasks; chunks in the journal are not made again."""

    def __init__(
        self, files: Sequence[InputFile], options: ScanOptions, root: Path, staging: Staging | None
    ) -> None:
        self.options, self.root, self.staging = options, root, staging
        self.files = [replace(file, path=file.path.absolute()) for file in files]  # for any worker
        self.opened: list[tuple[OpenFile, Fitted]] = []
        self.texts: dict[int, TextChoice] = {}
        """Form in which plain text is read, by the file's index."""
        self.known: set[str] = set()
        """Names of the chunks that an earlier process made."""
        self._bytes_told = 0

    def tasks(self) -> Iterator[ChunkTask | Done[ChunkResult]]:
        for file in self.files:
            options = self.options
            how, columns = options.rows, options.columns
            if file.of.layout:
                how, columns = how._replace(layout=load_layout(file.of.layout)), Columns()
            rows = open_rows(file, how, columns, options.text)
            self.opened.append((rows.file, rows.fitted))
            if rows.text is not None:
                self.texts[file.index] = rows.text
            for number, block in enumerate(rows.blocks):
                name = f"{file.index:05d}-{number:05d}"
                if known := self.staging and recall_chunk(self.staging, name, file.index):
                    self.known.add(name)
                    yield Done(known)
                else:
                    near, texts = options.near, options.has_texts
                    yield ChunkTask(
                        name, file, block, rows.options, options.checks, self.root, near, texts
                    )

    def take_bytes(self) -> int:
        """Return the number of bytes read since the last call."""
        read = sum(opened.num_bytes for opened, _ in self.opened)
        fresh, self._bytes_told = read - self._bytes_told, read
        return fresh


def _surveyed(
    opened: OpenFile, fitted: Fitted, parts: list[ChunkResult], text: TextChoice | None
) -> SurveyedFile:
    assert opened.end is not None
    file, end = opened.file, opened.end
    total = LineCounts(bom=end.bom)
    for part in parts:
        if part.source_index == file.index:
            total = total.plus(part.facts.counts)
    name = fitted.layout.name if fitted.layout else ""
    reading, notes = _reading(fitted, total, text), notes_of(end, total)
    gathered = fitted.layout is not None and fitted.layout.gather is not None
    return SurveyedFile(
        file,
        name,
        end.size_bytes,
        end.sha256,
        total,
        notes,
        reading,
        text,
        gathered,
        end.element_lines,
    )


def _with_split(file: SurveyedFile, splits: Splits) -> SurveyedFile:
    """Return the file; its split column is counted as read if it names splits."""
    if file.file.index not in splits.read:
        return file
    not_read = [column for column in file.reading.not_read if column.name not in SPLIT_KEYS]
    return file._replace(reading=file.reading.model_copy(update={"not_read": not_read}))


def _reading(fitted: Fitted, counts: LineCounts, text: TextChoice | None) -> Reading:
    """Return how a file was read, for the report and the manifest."""
    layout = fitted.layout
    if layout is None:
        return Reading()
    not_read = [
        ColumnNotRead(
            name=name,
            rows=found.rows,
            kind=found.kind,
            example=found.example,
            means=None if name in layout.optional else meaning_of(name.rpartition(".")[2]),
        )
        for name, found in counts.unread.items()
    ]
    said = [*fitted.said]
    if counts.nulls:
        said.append(
            f"{counts.nulls:,} nulls that the table adds to tool calls and tools are left out"
        )
    if text is not None:
        said.append(f"plain text as {text.name}: {text.why}")
    return Reading(chosen_by=fitted.chosen_by, said=said, not_read=not_read)


def _require_text(files: list[SurveyedFile], rule: TextRule) -> None:
    """Raise E182 if verbatim text is requested and every input contains dialogues."""
    if rule.mode == "verbatim" and files and all(file.text is None for file in files):
        problem = "text: verbatim, but no input has plain text: its rows are dialogues"
        raise UsageError("E182", files[0].file.name, problem, "leave text out")


def _funnel(files: list[SurveyedFile], parts: list[ChunkResult]) -> list[FunnelStage]:
    unread = counts(merge_counts(part.facts.unread for part in parts))
    refused = counts(merge_counts(part.facts.refused for part in parts))
    num_rows = sum(file.counts.lines - file.counts.blank for file in files)
    num_read = sum(file.counts.pairs for file in files)
    return [
        stage("read", num_rows, num_read, unread),
        stage("check", num_read, sum(part.facts.rows for part in parts), refused),
    ]
