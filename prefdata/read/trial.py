"""Trial of a layout: the first rows of a file, or a layout's own fixture, read by it."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from prefdata.arrow import empty_table
from prefdata.errors import UsageError
from prefdata.hub.inputs import ROWS_FOLDER
from prefdata.read.adapt.collect import RowOptions
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.adapt.named import Columns
from prefdata.read.files.source import InputFile
from prefdata.read.layouts import registry
from prefdata.read.layouts.model import Layout
from prefdata.read.reader import LineCounts, open_rows, read_part
from prefdata.read.texts import TextRule
from prefdata.records.findings import CodeCount, count_rows
from prefdata.records.schema import RECORDS, REJECTED

MOST_ROWS = 1000
SIDES = ("prompt", "chosen", "rejected")
_NUMBERS = ("score_chosen", "score_rejected", "margin", "model_chosen", "model_rejected")
_RANKS = ("chosen_rank", "rejected_rank")
_SHOWN = 300  # characters of a pair in a message


class Trial(NamedTuple):
    """Results of reading the first rows of a file."""

    num_rows: int
    pairs: list[dict[str, Any]]
    """The pairs, as fixtures have them."""
    lines: list[int]
    """Line of each pair."""
    refused: dict[str, CodeCount]
    counts: LineCounts
    said: tuple[str, ...]
    """What the first rows decided."""


def try_layout(layout: Layout, file: InputFile, *, most: int = MOST_ROWS) -> Trial:
    """Read the first rows of a file by a layout; raise a PrefdataError for a fault of the file."""
    rows = open_rows(file, RowOptions(layout), Columns(), TextRule())
    parts = []
    counts = LineCounts()
    for block in rows.blocks:
        parts.append(read_part(file, block, rows.options))
        counts = reduce(LineCounts.plus, [counts, parts[-1].counts])
        if counts.lines >= most:
            break
    records = pa.concat_tables([empty_table(RECORDS), *(part.records for part in parts)])
    refused = pa.concat_tables([empty_table(REJECTED), *(part.rejected for part in parts)])
    return Trial(
        counts.lines - counts.blank,
        [shown_pair(record) for record in records.to_pylist()],
        records["line"].to_pylist(),
        count_rows(refused, 1),
        counts,
        rows.fitted.said,
    )


def shown_pair(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as in fixtures: messages without nulls, other fields if they are set."""
    sides = {
        side: [{k: v for k, v in turn.items() if v is not None} for turn in record[side]]
        for side in SIDES
    }
    return sides | {name: record[name] for name in (*_NUMBERS, *_RANKS) if record[name] is not None}


def load_layout(name: str) -> Layout:
    """Load a layout by name or file, as `registry.load_layout`; check the fixture of others' own.

    Raises UsageError (C152) if a row of the fixture gives another pair.
    """
    layout = registry.load_layout(name)
    if not registry.is_shipped(layout):
        check_fixture(registry.find_layout(name)[0], name)
    return layout


def check_fixture(layout: Layout, place: str) -> None:
    """Raise UsageError (C152) unless the rows of a layout's fixture give its pairs.

    A pair may leave out fields, such as ranks.
    """
    rows, wanted = layout.fixture.rows, layout.fixture.pairs
    if not wanted or layout.refuse:
        return
    dimension = layout.dimension or next(iter(layout.dimensions), None)
    found = try_rows(registry.in_force(layout, dimension, place), rows)
    remedy = "correct the layout or its fixture, or leave the fixture out"
    for number, (got, want) in enumerate(zip(found.pairs, wanted, strict=False)):
        if not _rounded(want).items() <= _rounded(got).items():
            said = f"pair {number + 1} of the fixture is {_short(got)}, not {_short(want)}"
            raise UsageError("C152", place, said, remedy)
    if len(found.pairs) != len(wanted):
        reasons = [f"{place.message} ({code})" for code, one in found.refused.items()
                   for place in one.first]  # fmt: skip
        said = f"the fixture's rows give {len(found.pairs)} pairs, not {len(wanted)}"
        raise UsageError("C152", place, ": ".join([said, *reasons[:1]]), remedy)


def try_rows(layout: Layout, rows: Sequence[dict[str, Any]]) -> Trial:
    """Read rows by a layout, as a file of them is read."""
    with TemporaryDirectory(prefix=ROWS_FOLDER) as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return try_layout(layout, InputFile(path, path.name, 0))


def _rounded(pair: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a pair as text, numbers as records hold them, in 32 bits."""
    numbers = (int, float)
    return {
        name: str(np.float32(value)) if type(value) in numbers else canonical_json(value)
        for name, value in pair.items()
    }


def _short(pair: dict[str, Any]) -> str:
    text = orjson.dumps(pair).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
