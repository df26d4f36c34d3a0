"""One part of an input, from bytes to checked records: the first unit of work and of resume.

Its files lie in the staging folder until the build is done:

    parts/NAME.records.arrow    the records that passed the row checks
    parts/NAME.rejected.arrow   the rows and pairs that did not
    parts/NAME.keys.arrow       ids and places of the former
    parts/NAME.lines.arrow      the lines of the latter
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from prefdata.arrays import empty_table
from prefdata.check import check_rows, find_rows
from prefdata.findings import EXAMPLES, Met, Place, count_rows
from prefdata.keys import keys_of
from prefdata.read import Block, InputFile, LineCounts, RowOptions, read_part
from prefdata.records import RECORDS, REJECTED
from prefdata.store.commit import FileSeal
from prefdata.store.staging import stage_table
from prefdata.text import message_fields

FOLDER = "parts"


class RowChecks(NamedTuple):
    """What is looked at in every row."""

    severity: Mapping[str, str]
    control_tokens: tuple[str, ...]
    examples: int = EXAMPLES
    """How many places of each code are kept."""


class PartTask(NamedTuple):
    """What a process needs to make one part."""

    name: str
    file: InputFile
    block: Block
    options: RowOptions
    checks: RowChecks
    root: Path | None
    """The staging folder; None where nothing is to be written."""


class PartFacts(NamedTuple):
    """What is known of a part once it is made; plain values, so that the journal keeps it."""

    counts: LineCounts
    rows: int
    """Records that passed the row checks."""
    unread: dict[str, Met]
    """Rows that gave no record, by code."""
    refused: dict[str, Met]
    """Records that broke a rule, by code."""
    reported: dict[str, Met]
    """Findings in records that stay, by code."""
    fields: tuple[str, ...]
    """Fields of messages that some record uses."""
    is_chat: bool

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    @staticmethod
    def from_json(value: dict[str, Any]) -> "PartFacts":
        def met(codes: dict[str, Any]) -> dict[str, Met]:
            return {
                code: Met(num, tuple(Place._make(place) for place in first))
                for code, (num, first) in codes.items()
            }

        return PartFacts(
            LineCounts(*value["counts"]),
            value["rows"],
            met(value["unread"]),
            met(value["refused"]),
            met(value["reported"]),
            tuple(value["fields"]),
            value["is_chat"],
        )


class MadePart(NamedTuple):
    """A part's name, what it found, its files, and the two narrow tables over its rows."""

    name: str
    source_index: int
    facts: PartFacts
    files: dict[str, FileSeal]
    keys: pl.DataFrame
    lines: pl.DataFrame
    """`line` of each row and pair that was refused."""


def make_part(task: PartTask) -> MadePart:
    """Read and check one part, and write it where there is a staging folder."""
    rows = read_part(task.file, task.block, task.options)
    severity, control_tokens, examples = task.checks
    kept, refused = check_rows(rows.records, severity=severity, control_tokens=control_tokens)
    found = find_rows(kept, severity=severity, control_tokens=control_tokens)
    rejected = pa.concat_tables([rows.rejected, refused]).sort_by(
        [("line", "ascending"), ("ordinal", "ascending")]
    )
    facts = PartFacts(
        counts=rows.counts,
        rows=kept.num_rows,
        unread=count_rows(rows.rejected, examples),
        refused=count_rows(refused, examples),
        reported=count_rows(found, examples),
        fields=message_fields(kept),
        is_chat=bool((pl.Series(kept["form"]) != "text").any()),
    )
    keys, lines = keys_of(kept), pl.DataFrame({"line": pl.Series(rejected["line"])})
    files = {}
    if task.root is not None:
        tables = {
            "records": kept,
            "rejected": rejected,
            "keys": keys.to_arrow(),
            "lines": lines.to_arrow(),
        }
        files = {
            path_of(task.name, kind): stage_table(task.root / path_of(task.name, kind), table)
            for kind, table in tables.items()
        }
    return MadePart(task.name, task.file.index, facts, files, keys, lines)


def path_of(name: str, kind: str) -> str:
    return f"{FOLDER}/{name}.{kind}.arrow"


def recall_part(root: Path, name: str, source_index: int, entry: dict[str, Any]) -> MadePart:
    """A part that an earlier process made, as the journal knows it."""
    files = {path: FileSeal(*seal) for path, *seal in entry["files"]}
    keys, lines = (pl.read_ipc(root / path_of(name, kind)) for kind in ("keys", "lines"))
    return MadePart(name, source_index, PartFacts.from_json(entry["facts"]), files, keys, lines)


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
