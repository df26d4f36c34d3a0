"""A file to records, chunk by chunk: decompression, format, and layout of the rows."""

import gc
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.read.adapt.collect import Collector, RowOptions
from prefdata.read.adapt.gather import gather_blocks
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.adapt.named import Columns
from prefdata.read.adapt.widened import plain_rows
from prefdata.read.drift import Drift
from prefdata.read.faults import RowError
from prefdata.read.files.chunks import Block, LineBlock, LineRange, RowBlock, narrowed
from prefdata.read.files.formats import open_blocks
from prefdata.read.files.jsonl import Tally, raw_lines
from prefdata.read.files.parse_json import Object
from prefdata.read.files.source import InputFile, require_unchanged, stamp
from prefdata.read.files.unpack import HashedFile
from prefdata.read.fit import MOST_ROWS, Fitted, Wanted, fit
from prefdata.read.limits import Limits
from prefdata.read.texts import TextChoice, TextRule, choose_in_blocks
from prefdata.read.unread import UnreadColumns, add_unread

SAMPLE_BLOCKS = 2  # examined to detect the layout


class LineCounts(NamedTuple):
    """Counts of lines by outcome: lines = blank + pairs' rows + rejected rows."""

    lines: int = 0
    blank: int = 0
    pairs: int = 0
    rejected: int = 0
    bom: int = 0
    extra_keys: dict[str, int] = {}  # noqa: RUF012 - never changed
    prompts: int = 0
    """Prompts with candidates that gave pairs or ties; `completions` counts their completions."""
    completions: int = 0
    desirable: int = 0
    """Rows of unpaired layouts labelled good; `undesirable` counts those labelled bad."""
    undesirable: int = 0
    unread: UnreadColumns = {}  # noqa: RUF012 - never changed
    """Columns that the layout does not read."""
    drift: Drift = Drift()
    """Lines at which rows begin or cease to have a column of `extra_keys`."""
    nulls: int = 0
    """Nulls that a table's types added to tool calls and tools, and that are removed."""

    def plus(self, other: "LineCounts") -> "LineCounts":
        """Return the sum of both counts."""
        keys = Counter(self.extra_keys) + Counter(other.extra_keys)
        both: Iterator[tuple[str, Any, Any]] = zip(self._fields, self, other, strict=True)
        sums = {name: one + two for name, one, two in both if type(one) is int}
        unread = add_unread(self.unread, other.unread)
        drift = self.drift.plus(other.drift, self.extra_keys, other.extra_keys)
        extra = dict(sorted(keys.items()))
        return LineCounts(**sums, extra_keys=extra, unread=unread, drift=drift)


class PartRows(NamedTuple):
    """Results of reading one chunk of a file."""

    records: pa.Table
    rejected: pa.Table
    counts: LineCounts
    members: pl.DataFrame
    """Rows of MEMBERS."""


class FileEnd(NamedTuple):
    """Facts about a file that are known after its last chunk."""

    size_bytes: int
    sha256: str
    bom: int
    """Byte order marks outside all chunks."""
    notes: tuple[str, ...]
    element_lines: "array[int] | None" = None
    """Line of each element, if the file is a JSON array."""


class OpenFile:
    """An iterator over a file's chunks; `end` is set after the last one.

    Raises a PrefdataError for a fault of the file itself, possibly only after the last chunk, so
    rows count only once iteration has finished.
    """

    def __init__(self, file: InputFile, limits: Limits) -> None:
        self.file, self.limits = file, limits
        self.end: FileEnd | None = None
        self._source: HashedFile | None = None

    @property
    def num_bytes(self) -> int:
        """Return the number of bytes of the file read so far."""
        if self.end is not None:
            return self.end.size_bytes
        return self._source.num_bytes if self._source else 0

    def __iter__(self) -> Iterator[Block]:
        before, tally = stamp(self.file), Tally()
        with self.file.path.open("rb") as handle:
            source = self._source = HashedFile(handle)
            yield from open_blocks(self.file, source, self.limits, tally)
            for _ in source.blocks():  # hashes the bytes of table formats, which are read by path
                pass
        require_unchanged(self.file, before, is_whole=source.num_bytes == before.size)
        digest = source.hash.hexdigest()
        lines = tally.element_lines or None
        self.end = FileEnd(source.num_bytes, digest, tally.bom, tuple(tally.notes), lines)


class OpenRows(NamedTuple):
    """A file whose first rows have decided how it is read, and all its blocks."""

    file: OpenFile
    fitted: Fitted
    text: TextChoice | None
    """How plain text is read; None for dialogues."""
    options: RowOptions
    blocks: Iterator[Block]


def open_rows(file: InputFile, options: RowOptions, columns: Columns, text: TextRule) -> OpenRows:
    """Decide from its first rows how a file is read; `read_part` then reads each block.

    Raises a PrefdataError for a fault of the file. A file without rows gives no blocks.
    """
    opened = OpenFile(file, options.limits)
    wanted = Wanted(options.layout, columns)
    fitted, blocks = fit_to_blocks(file, iter(opened), wanted, options.limits)
    blocks = gather_blocks(blocks, fitted.layout, options.limits)
    options = options._replace(layout=fitted.layout)
    choice, blocks = choose_in_blocks(file, blocks, options, text)
    options = options._replace(plain=choice.form if choice else "chat")
    return OpenRows(opened, fitted, choice, options, blocks)


def notes_of(end: FileEnd, counts: LineCounts) -> tuple[str, ...]:
    """Return the notes on a file for the user."""
    notes = list(end.notes)
    if counts.lines == counts.blank:
        notes.append("contains no rows [E101]")
    if counts.prompts:
        prompts, completions, pairs = (
            f"{num:,} {noun}{'' if num == 1 else 's'}"
            for num, noun in (
                (counts.prompts, "prompt"),
                (counts.completions, "completion"),
                (counts.pairs, "pair"),
            )
        )
        notes.append(f"{prompts} with {completions} gave {pairs}")
    return tuple(notes)


def read_part(file: InputFile, block: Block, options: RowOptions) -> PartRows:
    """Return the records and refused rows of one chunk of a file."""
    tally = Tally()
    collector = Collector(file, options)
    with paused_gc():
        collector.read(plain_rows(block, options.limits, tally))
        for unit in block.units if isinstance(block, RowBlock) else ():
            collector.read_unit(unit)
    records = collector.records.table()
    counts = LineCounts(
        lines=tally.lines,
        blank=tally.blank,
        pairs=records.num_rows,
        rejected=collector.num_rejected,
        bom=tally.bom,
        extra_keys=dict(sorted(collector.extra_keys.items())),
        prompts=collector.prompts,
        completions=collector.completions,
        desirable=collector.labels[True],
        undesirable=collector.labels[False],
        unread=collector.unread,
        drift=collector.drift,
        nulls=tally.nulls,
    )
    return PartRows(records, collector.rejected.table(), counts, collector.members)


def raw_rows(block: Block, limits: Limits, lines: Collection[int]) -> dict[int, bytes]:
    """Return the bytes of some rows of a block, by line; of rows of a table, their JSON."""
    if not lines:
        return {}
    if isinstance(block, LineBlock | LineRange):
        return raw_lines(block, lines)
    if isinstance(block, RowBlock):
        members = (member for unit in block.units for member in unit.members)
        return {member.line: member.raw for member in members if member.line in lines}
    found = {}
    for line, _, raw, value in plain_rows(narrowed(block, lines), limits, Tally()):
        if line in lines and not isinstance(value, RowError):
            found[line] = canonical_json(value).encode() if raw is None else raw
    return found


def fit_to_blocks(
    file: InputFile, blocks: Iterator[Block], wanted: Wanted, limits: Limits
) -> tuple[Fitted, Iterator[Block]]:
    """Return reading options decided from a file's first rows, and all its blocks."""
    seen: list[Block] = []
    sample: list[Object] = []
    for block in blocks:
        seen.append(block)
        rows = plain_rows(block, limits, Tally())
        objects = (value for *_, value in rows if not isinstance(value, RowError))
        sample += islice(objects, MOST_ROWS - len(sample))
        if len(sample) >= MOST_ROWS or len(seen) >= SAMPLE_BLOCKS:
            break
    return fit(sample, wanted, limits, file.name), chain(seen, blocks)


@contextmanager
def paused_gc() -> Iterator[None]:
    """Pause the cyclic garbage collector: rows make millions of objects and no cycles.

    Reading then takes two thirds of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
