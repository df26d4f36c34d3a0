"""A file to records, part by part: what it is packed with, its format, its rows' layout."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import chain, islice
from typing import NamedTuple

import pyarrow as pa

from prefdata.arrays import empty_table
from prefdata.read.adapt import Adapter
from prefdata.read.blocks import Block
from prefdata.read.canonical import canonical_json
from prefdata.read.columns import RecordColumns, RejectedColumns
from prefdata.read.detect import SAMPLE, detect_layout
from prefdata.read.faults import RowFault
from prefdata.read.formats import open_blocks, read_rows
from prefdata.read.guard import Object
from prefdata.read.layout import Layout
from prefdata.read.limits import MIB, Limits, Pairing
from prefdata.read.rows import Row, Tally
from prefdata.read.source import InputFile, require_unchanged, stamp
from prefdata.read.unpack import HashedFile
from prefdata.records import RECORDS, REJECTED

SAMPLE_BLOCKS = 2  # looked at for the layout
MAX_EXTRA_KEYS = 1000  # distinct ones that are counted by name
MAX_EXPANSION = 1024 * MIB  # raw bytes times pairs of one row


class LineCounts(NamedTuple):
    """What became of lines: lines = blank + pairs' rows + rejected rows."""

    lines: int = 0
    blank: int = 0
    pairs: int = 0
    rejected: int = 0
    bom: int = 0
    extra_keys: dict[str, int] = {}  # noqa: RUF012 - never changed

    def plus(self, other: "LineCounts") -> "LineCounts":
        """Of both together."""
        keys = Counter(self.extra_keys) + Counter(other.extra_keys)
        return LineCounts(
            self.lines + other.lines,
            self.blank + other.blank,
            self.pairs + other.pairs,
            self.rejected + other.rejected,
            self.bom + other.bom,
            dict(sorted(keys.items())),
        )


class RowOptions(NamedTuple):
    """How rows are read; the same for all parts of a file."""

    layout: Layout | None
    """None: no row of the file's first part was an object."""
    pairing: Pairing = Pairing()
    limits: Limits = Limits()


class PartRows(NamedTuple):
    """All that was read of one part of a file."""

    records: pa.Table
    rejected: pa.Table
    counts: LineCounts


class FileEnd(NamedTuple):
    """What is known of a file once all its parts were given out."""

    size_bytes: int
    sha256: str
    bom: int
    """Byte order marks that no part holds."""
    notes: tuple[str, ...]


class OpenFile:
    """A file whose parts are given out one by one; at its end it says what it was.

    Iterating raises a PrefdataError where the file itself is at fault, at the latest after the last
    part: only then do the rows of its parts count.
    """

    def __init__(self, file: InputFile, limits: Limits) -> None:
        self.file, self.limits = file, limits
        self.end: FileEnd | None = None
        self._source: HashedFile | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the file that were read by now."""
        if self.end is not None:
            return self.end.size_bytes
        return self._source.num_bytes if self._source else 0

    def __iter__(self) -> Iterator[Block]:
        before, tally = stamp(self.file), Tally()
        with self.file.path.open("rb") as handle:
            source = self._source = HashedFile(handle)
            yield from open_blocks(self.file, source, self.limits, tally)
            for _ in source.blocks():  # a table format leaves the hashing of its bytes to this
                pass
        require_unchanged(self.file, before, source.num_bytes)
        digest = source.hash.hexdigest()
        self.end = FileEnd(source.num_bytes, digest, tally.bom, tuple(tally.notes))


class FileRows(NamedTuple):
    """All that was read of one file."""

    records: pa.Table
    rejected: pa.Table
    counts: LineCounts
    layout: str
    size_bytes: int
    sha256: str
    notes: tuple[str, ...] = ()


def read_file(
    file: InputFile, *, layout: Layout | None, pairing: Pairing, limits: Limits
) -> FileRows:
    """The records and refused rows of one file; a PrefdataError where the file itself is at fault.

    `layout` None: detected from the first rows. An empty file gives no rows and a note (E101).
    """
    opened = OpenFile(file, limits)
    blocks: Iterator[Block] = iter(opened)
    if layout is None:
        layout, blocks = detect_in_blocks(file, blocks, limits)
    options = RowOptions(layout, pairing, limits)
    parts = [read_part(file, block, options) for block in blocks]
    assert opened.end is not None
    counts = reduce(LineCounts.plus, (part.counts for part in parts), LineCounts())
    counts = counts._replace(bom=counts.bom + opened.end.bom)
    return FileRows(
        pa.concat_tables([empty_table(RECORDS), *(part.records for part in parts)]),
        pa.concat_tables([empty_table(REJECTED), *(part.rejected for part in parts)]),
        counts,
        layout.name if layout else "",
        opened.end.size_bytes,
        opened.end.sha256,
        notes_of(opened.end, counts),
    )


def notes_of(end: FileEnd, counts: LineCounts) -> tuple[str, ...]:
    """What a user should hear of a file."""
    nothing = counts.lines == counts.blank
    return (*end.notes, "holds no rows [E101]") if nothing else end.notes


def read_part(file: InputFile, block: Block, options: RowOptions) -> PartRows:
    """The records and refused rows of one part of a file."""
    tally = Tally()
    collector = _Collector(file, options)
    collector.read(read_rows(block, options.limits, tally))
    records = collector.records.table()
    counts = LineCounts(
        lines=tally.lines,
        blank=tally.blank,
        pairs=records.num_rows,
        rejected=collector.num_rejected,
        bom=tally.bom,
        extra_keys=dict(sorted(collector.extra_keys.items())),
    )
    return PartRows(records, collector.rejected.table(), counts)


def detect_in_blocks(
    file: InputFile, blocks: Iterator[Block], limits: Limits
) -> tuple[Layout | None, Iterator[Block]]:
    """The layout of the first rows, and all blocks; no layout where no row is an object."""
    seen: list[Block] = []
    sample: list[Object] = []
    for block in blocks:
        seen.append(block)
        rows = read_rows(block, limits, Tally())
        objects = (value for *_, value in rows if not isinstance(value, RowFault))
        sample += islice(objects, SAMPLE - len(sample))
        if len(sample) >= SAMPLE or len(seen) >= SAMPLE_BLOCKS:
            break
    layout = detect_layout(sample, file.name) if sample else None
    return layout, chain(seen, blocks)


@contextmanager
def paused_gc() -> Iterator[None]:
    """No search for reference cycles: rows make millions of objects and no cycles.

    Reading takes two thirds of the time without it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Collector:
    """Where the rows of one file end up."""

    def __init__(self, file: InputFile, options: RowOptions) -> None:
        layout = options.layout
        self.adapter = Adapter(layout, options.pairing, options.limits) if layout else None
        self.records, self.rejected = RecordColumns(file), RejectedColumns(file)
        self.num_rejected = 0
        self.extra_keys: dict[str, int] = {}

    def read(self, rows: Iterator[Row]) -> None:
        with paused_gc():
            for line, offset, raw, value in rows:
                if isinstance(value, RowFault):
                    fault: RowFault | None = value
                else:
                    fault = self._adapt(line, offset, raw, value)
                if fault:
                    self.num_rejected += 1
                    kept = canonical_json(value).encode() if raw is None else raw
                    self.rejected.add_row(line, offset, fault, kept)

    def _adapt(self, line: int, offset: int, raw: bytes | None, value: Object) -> RowFault | None:
        """Turn one object into records; its fault where it has one."""
        if self.adapter is None:  # rows beyond the sample of a file that began without objects
            return RowFault("R209", "no layout was found among the first rows")
        if not self.adapter.known.issuperset(value):
            self._count_extra(value.keys() - self.adapter.known)
        try:
            draft = self.adapter.read(value)
        except RowFault as fault:
            return fault
        num_bytes = len(raw or b"")
        if num_bytes * len(draft.pairs) > MAX_EXPANSION:
            return RowFault("R212", f"its {len(draft.pairs):,} pairs would take over 1 GiB")
        for ordinal in self.records.add(line, offset, draft, num_bytes):
            self.rejected.add_tie(line, offset, ordinal, draft)
        return None

    def _count_extra(self, names: set[str]) -> None:
        for name in names:
            known = name in self.extra_keys or len(self.extra_keys) < MAX_EXTRA_KEYS
            key = name if known else "(others)"
            self.extra_keys[key] = self.extra_keys.get(key, 0) + 1
