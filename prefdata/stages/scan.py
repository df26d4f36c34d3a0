"""Stage that `build` and `validate` share: from files to checked, distinct records."""

from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check import RowChecks
from prefdata.check.rows.profile import PROFILE
from prefdata.check.sets.found import SetFinding
from prefdata.check.severity import changed_severities
from prefdata.dedup.near import NearDuplicates, Neighbors, Unit, find_neighbors
from prefdata.engine import Done, Engine
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
from prefdata.records.findings import Location, counts, merge_counts
from prefdata.records.keys import KEY_COLUMNS, REJECTED_LINES, SOURCE_ROWS
from prefdata.records.split_names import SPLIT_KEYS, SplitOptions
from prefdata.records.text import ELEMENT_LINE
from prefdata.stages.chunk import (
    ChunkResult,
    ChunkTask,
    build_chunk,
    near_kind,
    path_of,
    recall_chunk,
)
from prefdata.stages.filter import FilterResult, Near, decide, stage
from prefdata.stages.set_checks import find_together, frame_of, note_copies
from prefdata.stages.split import Splits, mixed, settle_splits, splits_of_files
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
    """Options of near-duplicates; None if nothing is staged."""
    text: TextRule = TextRule()
    """Rule by which plain text becomes a chat or stays verbatim."""
    splits: SplitOptions = SplitOptions()
    """Splits of the files, and the policy for pairs that two of them share."""
    near_for_leaks: bool = False
    """True if near-duplicates are needed only for leaks between splits, because PD402 is off."""
    columns: Columns = Columns()
    """Names of the columns of prompt, chosen and rejected, if they are not the usual ones."""


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
    """Everything known before tokenization: every row is a record, or rejected with a code."""

    files: list[SurveyedFile]
    parts: list[ChunkResult]
    keys: pl.DataFrame
    """KEY_COLUMNS of all records, with `part` (index of the chunk), `row` in it, `source_index`."""
    profile: pl.DataFrame
    """PROFILE of all records, in the order of the keys."""
    refused: pl.DataFrame
    """REJECTED_LINES of each rejected row and pair, with `part`, `row` and `source_index`."""
    members: pl.DataFrame
    """SOURCE_ROWS of all pairs that were made from several rows, with the same columns."""
    splits: Splits
    decision: FilterResult
    of_set: list[SetFinding]
    """Dataset-level findings over the kept records."""
    funnel: list[FunnelStage]
    notes: list[str]

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

    def element_lines(self, at: pl.Series) -> pl.DataFrame | None:
        """Return the lines of the elements of JSON arrays among some pairs, by index in the keys.

        Columns: `source_index`, `line` (the element's number), `element_line`; None if no input is
        a JSON array.
        """
        arrays = {f.file.index: f.element_lines for f in self.files if f.element_lines is not None}
        if not arrays:
            return None
        places = self.keys.select("source_index", "line")[at].unique(maintain_order=True)
        places = places.filter(pl.col("source_index").is_in(list(arrays)))
        lines = [arrays[index][number - 1] for index, number in places.iter_rows()]
        return places.with_columns(pl.Series(ELEMENT_LINE, lines, pl.Int64))

    def stays(self, refused: Sequence[int]) -> NDArray[np.bool_]:
        """Return the mask of kept pairs, without those that were refused at tokenization."""
        kept_mask = self.decision.kept_mask.copy()
        kept_mask[list(refused)] = False
        return kept_mask


def scan(
    files: Sequence[InputFile],
    options: ScanOptions,
    *,
    workers: Engine,
    staging: Staging | None,
    progress: Progress,
) -> ScanResult:
    """Read every file, check its rows, and drop duplicates and contradictions."""
    with progress.bar("reading", sum(file.path.stat().st_size for file in files)) as advance:
        reading = _Reading(files, options, staging)
        parts = []
        for part in workers.map(build_chunk, reading.tasks()):
            if staging is not None and part.name not in reading.known:
                staging.record(part.name, part.files, part.facts)
            parts.append(part)
            advance(reading.take_bytes())
        advance(reading.take_bytes())
    found = [
        _surveyed(opened, fitted, parts, reading.texts.get(opened.file.index))
        for opened, fitted in reading.opened
    ]
    _require_text(found, options.text)
    keys = _gathered(parts, KEY_COLUMNS, lambda part: part.keys).rechunk()
    profile = pl.concat([pl.DataFrame(schema=PROFILE), *(part.profile for part in parts)])
    splits = _splits(found, keys, profile, options.splits)
    found = [_with_split(file, splits) for file in found]
    near = None
    if staging is not None and options.near is not None:
        workers.rest()
        near = _near(staging.root, parts, options.near, only_leaks=options.near_for_leaks)
    severity, leaks = options.checks.severity, options.splits.leaks
    decision = decide(keys, severity, near, options.exclusions, splits.of_rows, leaks)
    kept_mask = frame_of(keys, profile, splits).filter(pl.Series(decision.kept_mask))
    counts = [file.counts for file in found]
    readings = [file.reading for file in found]
    return ScanResult(
        found,
        parts,
        keys,
        profile,
        _gathered(parts, REJECTED_LINES, lambda part: part.lines),
        _gathered(parts, SOURCE_ROWS, lambda part: part.members),
        splits,
        decision,
        find_together(kept_mask, parts, counts, readings, options.checks),
        [*_funnel(found, parts), *decision.funnel],
        [*_notes(found, keys, decision), *changed_severities(severity), *splits.notes],
    )


def stage_chunks(
    files: Sequence[InputFile], options: ScanOptions, names: Collection[str], root: Path
) -> None:
    """Read some chunks again, by name, and write their files below `root`."""
    wanted = set(names)
    for task in _Reading(files, options, None).tasks():
        assert isinstance(task, ChunkTask)
        if task.name in wanted:
            build_chunk(task._replace(root=root, near=None))
            wanted.remove(task.name)
        if not wanted:
            return


def _notes(
    found: Sequence[SurveyedFile], keys: pl.DataFrame, decision: FilterResult
) -> Iterator[str]:
    """Yield the notes on how files were found, those on what they contain, and one on copies."""
    yield from (file.file.note for file in found if file.file.note)
    yield from (f"{file.file.source}: {note}" for file in found for note in file.notes)
    own = {file.file.index: file.file.source for file in found if file.layout in OWN_TEXT}
    yield from note_copies(own, keys, decision.copies)


def _splits(
    found: Sequence[SurveyedFile], keys: pl.DataFrame, profile: pl.DataFrame, options: SplitOptions
) -> Splits:
    """Return the split of each record, by config, by file name, and by split column, in this order.

    In a build's own text shards the split column is that of its inputs, so the file name wins.
    """
    if options.resplit:
        return mixed(len(found))
    files = [one.file for one in found]
    by_file = splits_of_files(files, options.given)
    own = [at for at, one in enumerate(found) if one.layout in OWN_TEXT and by_file[at].split]
    said = pl.when(~pl.col("source_index").is_in(own)).then(profile["said_split"])
    rows = keys.select("source_index", "line", said=said)
    return settle_splits([file.source for file in files], by_file, rows)


class _Reading:
    """Files in turn, each split into chunk tasks; chunks in the journal are not made again."""

    def __init__(
        self, files: Sequence[InputFile], options: ScanOptions, staging: Staging | None
    ) -> None:
        self.files, self.options, self.staging = files, options, staging
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
            root = None if self.staging is None else self.staging.root
            for number, block in enumerate(rows.blocks):
                name = f"{file.index:05d}-{number:05d}"
                if known := self.staging and recall_chunk(self.staging, name, file.index):
                    self.known.add(name)
                    yield Done(known)
                else:
                    yield ChunkTask(
                        name, file, block, rows.options, options.checks, root, options.near
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


def _near(
    root: Path, parts: list[ChunkResult], options: NearDuplicates, *, only_leaks: bool
) -> Near:
    """Find the near-duplicates by each unit, among the rows of all chunks."""

    def find(unit: Unit) -> Neighbors:
        paths = [root / path_of(part.name, near_kind(unit)) for part in parts]
        return find_neighbors(paths, threshold=options.threshold)

    return Near(options, {unit: find(unit) for unit in options.units}, only_leaks)


def _gathered(
    parts: list[ChunkResult],
    schema: dict[str, type[pl.DataType]],
    table: Callable[[ChunkResult], pl.DataFrame],
) -> pl.DataFrame:
    """Return one table of all chunks, with `part`, `row` and `source_index`."""
    frames = [
        table(part).with_columns(
            part=pl.lit(number, pl.UInt32),
            row=pl.int_range(pl.len(), dtype=pl.UInt32),
            source_index=pl.lit(part.source_index, pl.Int32),
        )
        for number, part in enumerate(parts)
    ]
    own = {"part": pl.UInt32, "row": pl.UInt32, "source_index": pl.Int32}
    return pl.concat([pl.DataFrame(schema={**schema, **own}), *frames])


def _funnel(files: list[SurveyedFile], parts: list[ChunkResult]) -> list[FunnelStage]:
    unread = counts(merge_counts(part.facts.unread for part in parts))
    refused = counts(merge_counts(part.facts.refused for part in parts))
    num_rows = sum(file.counts.lines - file.counts.blank for file in files)
    num_read = sum(file.counts.pairs for file in files)
    return [
        stage("read", num_rows, num_read, unread),
        stage("check", num_read, sum(part.facts.rows for part in parts), refused),
    ]
