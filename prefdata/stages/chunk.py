"""Processing of one chunk of an input, from bytes to checked records.

A chunk is the first unit of work and of resume. Its files are in the staging directory until
the build is done:

    parts/NAME.records.arrow    the records that passed the row checks
    parts/NAME.rejected.arrow   the rows and pairs that failed them
    parts/NAME.keys.arrow       ids and locations of the records
    parts/NAME.lines.arrow      locations of the rejected rows and pairs
    parts/NAME.members.arrow    the other source rows of records, if there are any
    parts/NAME.near-UNIT.arrow  sketches of the records, to find near-duplicates
    parts/NAME.bands-UNIT.arrow their keys, sorted
    parts/NAME.profile.arrow    features of the records, for the dataset-level checks
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter

from prefdata.arrow import empty_table, numbers_array
from prefdata.check import RowChecks, examine_rows
from prefdata.check.rows.profile import PROFILE, storable
from prefdata.check.sets.triggers import TriggerCandidate
from prefdata.dedup.near import NearDuplicates, make_sketch, unit_texts
from prefdata.dedup.near.bands import store_sketch
from prefdata.engine.exchange import Parts
from prefdata.read import Block, InputFile, LineCounts, RowOptions, raw_rows, read_part
from prefdata.records.findings import CodeCount, count_rows
from prefdata.records.keys import REJECTED_LINES, SOURCE_ROWS, keys_of
from prefdata.records.rejected import lines_without_raw, with_raw
from prefdata.records.schema import RECORDS, REJECTED
from prefdata.records.text import PlainPair, first_pair, message_fields
from prefdata.store.commit import FileDigest
from prefdata.store.staging import Staging, stage_bytes, stage_table

FOLDER = "parts"


class ChunkTask(NamedTuple):
    """Inputs of a worker for one chunk."""

    name: str
    file: InputFile
    block: Block
    options: RowOptions
    checks: RowChecks
    root: Path
    """The staging directory."""
    near: NearDuplicates | None = None
    """Options of the sketches."""
    has_texts: bool = True
    """False if records and rejected rows are not written, because nothing reads them."""

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
    said: tuple[tuple[str | None, int, int], ...]
    """Values of the split column, each with the number of its records and the first line."""
    first: PlainPair | None = None
    """The first record as plain text, for the report of a validation."""


CHUNK_STATS = TypeAdapter(ChunkStats)


class ChunkResult(NamedTuple):
    """Name, statistics and files of a chunk: its rows stay in the files."""

    name: str
    source_index: int
    facts: ChunkStats
    files: dict[str, FileDigest]


def build_chunk(task: ChunkTask) -> ChunkResult:
    """Read and check one chunk, and write it."""
    rows = read_part(task.file, task.block, task.options)
    seen, examples = examine_rows(rows.records, task.checks), task.checks.examples
    kept, profile = seen.kept, seen.profile
    raw_of = raw_rows(task.block, task.options.limits, lines_without_raw(seen.refused))
    refused = with_raw(seen.refused, raw_of)
    rejected = pa.concat_tables([rows.rejected, refused]).sort_by(
        [("line", "ascending"), ("ordinal", "ascending")]
    )
    keys = keys_of(kept)
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
        said=_said(keys["line"], profile["said_split"]),
        first=first_pair(kept) if not task.has_texts else None,
    )
    lines = pl.DataFrame(
        {name: pl.Series(rejected[name]) for name in REJECTED_LINES}, schema=REJECTED_LINES
    )
    tables = {"keys": keys.to_arrow(), "profile": storable(profile), "lines": lines.to_arrow()}
    if not rows.members.is_empty():
        tables["members"] = rows.members.to_arrow()
    if task.has_texts:
        tables |= {"records": kept, "rejected": rejected}
    files = {
        path_of(task.name, kind): stage_table(task.root / path_of(task.name, kind), table)
        for kind, table in tables.items()
    }
    return ChunkResult(task.name, task.file.index, facts, files | _sketches(task, kept, keys))


def _sketches(task: ChunkTask, kept: pa.Table, keys: pl.DataFrame) -> dict[str, FileDigest]:
    """Write the sketches of the records, by each unit."""
    files, near = dict[str, FileDigest](), task.near
    if near is None:
        return files
    for unit in near.units:
        sketch = make_sketch(unit_texts(kept, unit), near.sketch_options(unit))
        table, run = store_sketch(sketch, keys["group_id_hi"].to_numpy())
        name = path_of(task.name, f"near-{unit}")
        files[name] = stage_table(task.root / name, table)
        name = path_of(task.name, f"bands-{unit}")
        files[name] = stage_bytes(task.root / name, memoryview(run))
    return files


def _said(lines: pl.Series, said: pl.Series) -> tuple[tuple[str | None, int, int], ...]:
    rows = pl.DataFrame({"said": said.cast(pl.String), "line": lines})
    groups = rows.group_by("said").agg(pl.len(), pl.col("line").min())
    return tuple(groups.sort("line", "said").iter_rows())


def path_of(name: str, kind: str) -> str:
    return f"{FOLDER}/{name}.{kind}.arrow"


def recall_chunk(staging: Staging, name: str, source_index: int) -> ChunkResult | None:
    """Load a chunk that an earlier process made, from the journal."""
    known = staging.known(name, CHUNK_STATS)
    return None if known is None else ChunkResult(name, source_index, known[1], known[0])


def read_narrow(parts: Parts, part: int, kind: str) -> pl.DataFrame:
    """Return the keys, the profile, the lines or the members of a chunk, with `source_index`."""
    path = parts.path_of(part, kind)
    if kind == "members" and not path.exists():
        found = pl.DataFrame(schema=SOURCE_ROWS)
    else:
        with path.open("rb") as file:
            found = pl.read_ipc(file)  # polars would read a path as a glob or a URL
    if kind == "profile":
        found = found.cast(PROFILE)
    return found.with_columns(source_index=pl.lit(int(parts.sources[part]), pl.Int32))


def read_keys(parts: Parts, part: int) -> pl.DataFrame:
    """Return KEY_COLUMNS of a chunk's records, with `source_index` and `at`, the record's index."""
    found, start = read_narrow(parts, part, "keys"), parts.start_of(part)
    return found.with_columns(
        at=pl.int_range(start, start + len(found), dtype=pl.Int64, eager=True)
    )


def gather(parts: Parts, rows: NDArray[np.int64]) -> pa.Table:
    """Return some records in this order, by their indices."""
    numbers, places = parts.locate(rows)
    order = np.lexsort((places, numbers))
    tables = [empty_table(RECORDS)]
    for run in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(rows) else ():
        table = open_part(parts, int(numbers[run[0]]), "records")
        tables.append(table.take(numbers_array(places[run])))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_tables(tables).take(numbers_array(back))


def open_part(parts: Parts, part: int, kind: str) -> pa.Table:
    """Return the records or the rejected rows of a chunk, memory-mapped."""
    schema = {"records": RECORDS, "rejected": REJECTED}[kind]
    with pa.memory_map(str(parts.path_of(part, kind))) as source:
        return pa.ipc.open_file(source).read_all().cast(schema)
