"""One file to records: what it is packed with, what format it has, which layout its rows have."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from prefdata.read.adapt import Adapter
from prefdata.read.canonical import canonical_json
from prefdata.read.columns import RecordColumns, RejectedColumns
from prefdata.read.detect import SAMPLE, detect_layout
from prefdata.read.faults import RowFault
from prefdata.read.formats import open_rows
from prefdata.read.guard import Object
from prefdata.read.layout import Layout
from prefdata.read.limits import MIB, Limits, Pairing
from prefdata.read.rows import Row, Tally
from prefdata.read.source import InputFile, require_unchanged, stamp
from prefdata.read.unpack import HashedFile

SAMPLE_BYTES = 32 * MIB
MAX_EXTRA_KEYS = 1000  # distinct ones that are counted by name
MAX_EXPANSION = 1024 * MIB  # raw bytes times pairs of one row


class LineCounts(NamedTuple):
    """What became of a file's lines: lines = blank + pairs' rows + rejected rows."""

    lines: int
    blank: int
    pairs: int
    rejected: int
    bom: int
    extra_keys: dict[str, int]


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
    before, tally = stamp(file), Tally()
    with file.path.open("rb") as handle:
        source = HashedFile(handle)
        rows = open_rows(file, source, limits, tally)
        if layout is None:
            layout, rows = _detect(file, rows)
        collector = _Collector(file, layout, pairing, limits)
        collector.read(rows)
        for _ in source.blocks():  # a table format leaves the hashing of its bytes to this
            pass
    require_unchanged(file, before, source.num_bytes)
    if tally.lines == tally.blank:
        tally.notes.append("holds no rows [E101]")
    records = collector.records.table()
    counts = LineCounts(
        lines=tally.lines,
        blank=tally.blank,
        pairs=records.num_rows,
        rejected=collector.num_rejected,
        bom=tally.bom,
        extra_keys=dict(sorted(collector.extra_keys.items())),
    )
    return FileRows(
        records,
        collector.rejected.table(),
        counts,
        layout.name if layout else "",
        source.num_bytes,
        source.hash.hexdigest(),
        tuple(tally.notes),
    )


def _detect(file: InputFile, rows: Iterator[Row]) -> tuple[Layout | None, Iterator[Row]]:
    """The layout of the first rows, and all rows; no layout where no row is an object."""
    seen: list[Row] = []
    sample: list[Object] = []
    num_bytes = 0
    for row in rows:
        seen.append(row)
        _, _, raw, value = row
        num_bytes += len(raw or b"")
        if not isinstance(value, RowFault):
            sample.append(value)
        if len(sample) >= SAMPLE or num_bytes >= SAMPLE_BYTES:
            break
    layout = detect_layout(sample, file.name) if sample else None
    return layout, chain(seen, rows)


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

    def __init__(
        self, file: InputFile, layout: Layout | None, pairing: Pairing, limits: Limits
    ) -> None:
        self.adapter = Adapter(layout, pairing, limits) if layout else None
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
