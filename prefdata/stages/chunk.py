"""Processing of one chunk of an input, from bytes to checked records.

A chunk is the first unit of work and of resume. Its files are in the staging directory until
the build is done:

    parts/NAME.records.arrow    the records that passed the row checks
    parts/NAME.rejected.arrow   the rows and pairs that failed them
    parts/NAME.keys.arrow       ids and locations of the records
    parts/NAME.lines.arrow      locations of the rejected rows and pairs
    parts/NAME.members.arrow    the other source rows of records, if there are any
    parts/NAME.near-UNIT.arrow  sketches of the records, to find near-duplicates
    parts/NAME.profile.arrow    features of the records, for the dataset-level checks
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
from pydantic import TypeAdapter

from prefdata.arrow import empty_table
from prefdata.check import RowChecks, examine_rows
from prefdata.check.rows.profile import PROFILE, storable
from prefdata.check.sets.triggers import TriggerCandidate
from prefdata.dedup.near import NearDuplicates, make_sketch, sketch_table, unit_texts
from prefdata.read import Block, InputFile, LineCounts, RowOptions, raw_rows, read_part
from prefdata.records.findings import CodeCount, count_rows
from prefdata.records.keys import REJECTED_LINES, SOURCE_ROWS, keys_of
from prefdata.records.rejected import lines_without_raw, with_raw
from prefdata.records.schema import RECORDS, REJECTED
from prefdata.records.text import PlainPair, first_pair, message_fields
from prefdata.store.commit import FileDigest
from prefdata.store.staging import Staging, stage_table

FOLDER = "parts"


class ChunkTask(NamedTuple):
    """Inputs of a worker for one chunk."""

    name: str
    file: InputFile
    block: Block
    options: RowOptions
    checks: RowChecks
    root: Path | None
    """The staging directory; None if nothing is written."""
    near: NearDuplicates | None = None
    """Options of the sketches; None without a staging directory."""

    @property
    def about(self) -> str:
        """Return the chunk in words, for an error."""
        return f"{self.file.name}, part {self.name}"


class ChunkStats(NamedTuple):
    """Statistics of a finished chunk; plain values, so that the journal can store them."""

    counts: LineCounts
    rows: int
    """Records that passed the row checks."""
    unread: dict[str, CodeCount]
    """Rows that gave no record, by code."""
    refused: dict[str, CodeCount]
    """Records that broke a rule, by code."""
    reported: dict[str, CodeCount]
    """Findings of severity W in kept records, by code."""
    counted: dict[str, CodeCount]
    """Findings of severity I in kept records, by code."""
    seeds: tuple[TriggerCandidate, ...]
    """Candidates for backdoor triggers."""
    fields: tuple[str, ...]
    """Message fields that at least one record uses."""
    is_chat: bool
    """True if at least one record is a chat."""
    is_text: bool
    """True if at least one record is verbatim text."""
    first: PlainPair | None = None
    """The first record as plain text, for the report of a validation."""


CHUNK_STATS = TypeAdapter(ChunkStats)


class ChunkResult(NamedTuple):
    """Name, statistics and files of a chunk, and the narrow tables over its rows."""

    name: str
    source_index: int
    facts: ChunkStats
    files: dict[str, FileDigest]
    keys: pl.DataFrame
    profile: pl.DataFrame
    lines: pl.DataFrame
    """REJECTED_LINES of each rejected row and pair."""
    members: pl.DataFrame
    """SOURCE_ROWS of pairs that were made from several rows."""


def build_chunk(task: ChunkTask) -> ChunkResult:
    """Read and check one chunk, and write it if there is a staging directory."""
    rows = read_part(task.file, task.block, task.options)
    seen, examples = examine_rows(rows.records, task.checks), task.checks.examples
    kept, profile = seen.kept, seen.profile
    raw_of = raw_rows(task.block, task.options.limits, lines_without_raw(seen.refused))
    refused = with_raw(seen.refused, raw_of)
    rejected = pa.concat_tables([rows.rejected, refused]).sort_by(
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
        first=first_pair(kept) if task.root is None else None,
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
            **({} if members.is_empty() else {"members": members.to_arrow()}),
        }
        if (near := task.near) is not None:
            for unit in near.units:
                sketch = make_sketch(unit_texts(kept, unit), near.sketch_options(unit))
                tables[near_kind(unit)] = sketch_table(sketch)
        files = {
            path_of(task.name, kind): stage_table(task.root / path_of(task.name, kind), table)
            for kind, table in tables.items()
        }
    return ChunkResult(task.name, task.file.index, facts, files, keys, profile, lines, members)


def near_kind(unit: str) -> str:
    return f"near-{unit}"


def path_of(name: str, kind: str) -> str:
    return f"{FOLDER}/{name}.{kind}.arrow"


def recall_chunk(staging: Staging, name: str, source_index: int) -> ChunkResult | None:
    """Load a chunk that an earlier process made, from the journal and its files."""
    known = staging.known(name, CHUNK_STATS)
    if known is None:
        return None
    files, facts = known

    def read(kind: str) -> pl.DataFrame:
        with (staging.root / path_of(name, kind)).open("rb") as file:
            return pl.read_ipc(file)  # polars would read a path as a glob or a URL

    keys, profile, lines = read("keys"), read("profile").cast(PROFILE), read("lines")
    has_members = path_of(name, "members") in files
    members = read("members") if has_members else pl.DataFrame(schema=SOURCE_ROWS)
    return ChunkResult(name, source_index, facts, files, keys, profile, lines, members)


def gather(root: Path, names: Sequence[str], places: pl.DataFrame) -> pa.Table:
    """Return the records at `places`, in their order.

    Columns of `places`: `part`, an index into `names`, and `row`.
    """
    order = places.select("part", "row").with_row_index("at").sort("part", "row")
    tables = [empty_table(RECORDS)]
    for (part,), some in order.group_by("part", maintain_order=True):
        tables.append(open_part(root, names[int(part)], "records").take(some["row"].to_arrow()))
    back = order.select("at").with_row_index("place").sort("at")["place"]
    return pa.concat_tables(tables).take(back.to_arrow())


def open_part(root: Path, name: str, kind: str) -> pa.Table:
    """Return one table of a chunk, memory-mapped."""
    schema = {"records": RECORDS, "rejected": REJECTED}[kind]
    with pa.memory_map(str(root / path_of(name, kind))) as source:
        return pa.ipc.open_file(source).read_all().cast(schema)
