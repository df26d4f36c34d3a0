"""One part of an input, from bytes to checked records: the first unit of work and of resume.

Its files lie in the staging folder until the build is done:

    parts/NAME.records.arrow    the records that passed the row checks
    parts/NAME.rejected.arrow   the rows and pairs that did not
    parts/NAME.keys.arrow       ids and places of the former
    parts/NAME.lines.arrow      the places of the latter
    parts/NAME.members.arrow    the other rows that records stand on, where there are any
    parts/NAME.near-UNIT.arrow  what near-duplicates of the former are found by
    parts/NAME.profile.arrow    what checks of the whole set need to know of them
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.arrow import empty_table
from prefdata.check import RowChecks, examine_rows
from prefdata.check.rows.profile import PROFILE, storable
from prefdata.check.sets.triggers import TriggerCandidate, seed_of
from prefdata.dedup.near import NearDuplicates, make_sketch, sketch_table, unit_texts
from prefdata.read import Block, InputFile, LineCounts, RowOptions, read_part
from prefdata.records.findings import CodeCount, Location, count_rows
from prefdata.records.keys import REJECTED_LINES, SOURCE_ROWS, keys_of
from prefdata.records.schema import RECORDS, REJECTED
from prefdata.records.text import message_fields
from prefdata.store.commit import FileDigest
from prefdata.store.staging import stage_table

FOLDER = "parts"


class ChunkTask(NamedTuple):
    """What a process needs to make one part."""

    name: str
    file: InputFile
    block: Block
    options: RowOptions
    checks: RowChecks
    root: Path | None
    """The staging folder; None where nothing is to be written."""
    near: NearDuplicates | None = None
    """What sketches are made of the records; none without a staging folder."""

    @property
    def about(self) -> str:
        """The part in words, for an error."""
        return f"{self.file.name}, part {self.name}"


class ChunkStats(NamedTuple):
    """What is known of a part once it is made; plain values, so that the journal keeps it."""

    counts: LineCounts
    rows: int
    """Records that passed the row checks."""
    unread: dict[str, CodeCount]
    """Rows that gave no record, by code."""
    refused: dict[str, CodeCount]
    """Records that broke a rule, by code."""
    reported: dict[str, CodeCount]
    """Findings in records that stay, by code."""
    counted: dict[str, CodeCount]
    """The same of severity I."""
    seeds: tuple[TriggerCandidate, ...]
    """Words that look planted."""
    fields: tuple[str, ...]
    """Fields of messages that some record uses."""
    is_chat: bool
    """Whether some record is a chat."""
    is_text: bool
    """Whether some record is verbatim text."""

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ChunkStats":
        def met(codes: dict[str, Any]) -> dict[str, CodeCount]:
            return {
                code: CodeCount(num, tuple(Location._make(place) for place in first))
                for code, (num, first) in codes.items()
            }

        return ChunkStats(
            LineCounts.from_json(value["counts"]),
            value["rows"],
            met(value["unread"]),
            met(value["refused"]),
            met(value["reported"]),
            met(value["counted"]),
            tuple(map(seed_of, value["seeds"])),
            tuple(value["fields"]),
            value["is_chat"],
            value["is_text"],
        )


class ChunkResult(NamedTuple):
    """A part's name, what it found, its files, and the narrow tables over its rows."""

    name: str
    source_index: int
    facts: ChunkStats
    files: dict[str, FileDigest]
    keys: pl.DataFrame
    profile: pl.DataFrame
    lines: pl.DataFrame
    """LINES of each row and pair that was refused."""
    members: pl.DataFrame
    """MEMBERS of pairs that came out of several rows."""


def build_chunk(task: ChunkTask) -> ChunkResult:
    """Read and check one part, and write it where there is a staging folder."""
    rows = read_part(task.file, task.block, task.options)
    seen, examples = examine_rows(rows.records, task.checks), task.checks.examples
    kept, profile = seen.kept, seen.profile
    rejected = pa.concat_tables([rows.rejected, seen.refused]).sort_by(
        [("line", "ascending"), ("ordinal", "ascending")]
    )
    facts = ChunkStats(
        counts=rows.counts,
        rows=kept.num_rows,
        unread=count_rows(rows.rejected, examples),
        refused=count_rows(seen.refused, examples),
        reported=seen.reported,
        counted=seen.counted,
        seeds=tuple(seen.seeds),
        fields=message_fields(kept),
        is_chat=bool((pl.Series(kept["form"]) != "text").any()),
        is_text=bool((pl.Series(kept["form"]) == "text").any()),
    )
    keys, members = keys_of(kept), rows.members
    lines = pl.DataFrame(
        {name: pl.Series(rejected[name]) for name in REJECTED_LINES}, schema=REJECTED_LINES
    )
    files = {}
    if task.root is not None:
        tables = {
            "records": kept,
            "rejected": rejected,
            "keys": keys.to_arrow(),
            "profile": storable(profile),
            "lines": lines.to_arrow(),
            **_sketch_tables(kept, task.near),
            **({} if members.is_empty() else {"members": members.to_arrow()}),
        }
        files = {
            path_of(task.name, kind): stage_table(task.root / path_of(task.name, kind), table)
            for kind, table in tables.items()
        }
    return ChunkResult(task.name, task.file.index, facts, files, keys, profile, lines, members)


def _sketch_tables(kept: pa.Table, near: NearDuplicates | None) -> dict[str, pa.Table]:
    if near is None:
        return {}
    sketches = {
        unit: make_sketch(unit_texts(kept, unit), near.sketch_options(unit)) for unit in near.units
    }
    return {near_kind(unit): sketch_table(sketch) for unit, sketch in sketches.items()}


def near_kind(unit: str) -> str:
    return f"near-{unit}"


def path_of(name: str, kind: str) -> str:
    return f"{FOLDER}/{name}.{kind}.arrow"


def recall_part(root: Path, name: str, source_index: int, entry: dict[str, Any]) -> ChunkResult:
    """A part that an earlier process made, as the journal knows it."""
    files = {path: FileDigest(*seal) for path, *seal in entry["files"]}
    keys, profile, lines = (
        _read_ipc(root / path_of(name, kind)) for kind in ("keys", "profile", "lines")
    )
    path, members = path_of(name, "members"), pl.DataFrame(schema=SOURCE_ROWS)
    if path in files:
        members = _read_ipc(root / path)
    facts = ChunkStats.from_json(entry["facts"])
    profile = profile.cast(PROFILE)
    return ChunkResult(name, source_index, facts, files, keys, profile, lines, members)


def _read_ipc(path: Path) -> pl.DataFrame:
    """Return a table; a path would be a glob or a URL to polars."""
    with path.open("rb") as file:
        return pl.read_ipc(file)


def gather(root: Path, names: Sequence[str], places: pl.DataFrame) -> pa.Table:
    """Records by their places, `part` (an index into `names`) and `row`, in the order given."""
    order = places.select("part", "row").with_row_index("at").sort("part", "row")
    tables = [empty_table(RECORDS)]
    for (part,), some in order.group_by("part", maintain_order=True):
        tables.append(open_part(root, names[int(part)], "records").take(some["row"].to_arrow()))
    back = order.select("at").with_row_index("place").sort("at")["place"]
    return pa.concat_tables(tables).take(back.to_arrow())


def open_part(root: Path, name: str, kind: str) -> pa.Table:
    """One of a part's tables, mapped."""
    schema = {"records": RECORDS, "rejected": REJECTED}[kind]
    with pa.memory_map(str(root / path_of(name, kind))) as source:
        return pa.ipc.open_file(source).read_all().cast(schema)
