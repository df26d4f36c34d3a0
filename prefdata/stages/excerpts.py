"""Text of the rows that a report names, from the chunks in the staging directory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow.compute as pc

from prefdata.check import CheckLimits
from prefdata.check.rows.evidence import Reading
from prefdata.engine.exchange import Parts, read_parts
from prefdata.records.findings import EXAMPLES, count_rows
from prefdata.records.rejected import SIDES
from prefdata.report.excerpts import MOST_ROWS, excerpts_of, refused_excerpts
from prefdata.report.form import report_of
from prefdata.report.model import Example, Excerpt, Finding, Report
from prefdata.stages.chunk import gather, open_part, read_narrow
from prefdata.stages.scan import ScanResult
from prefdata.stages.statistics import example_at
from prefdata.store.reader import Build

_PLACE = ("source_index", "line")
Rows = dict[tuple[int, int], list[Any]]
"""Rows by the index of their file and their number there."""


def add_excerpts(report: Report, found: ScanResult, texts: Parts, reading: Reading) -> Report:
    """Return the report with text of the first rows of each finding, refused ones included.

    `texts` has the records and rejected rows of at least the chunks of `chunks_named`.
    """
    places = _places(report, found)
    refused, pairs = _refused_at(found, texts, places), _pairs_at(found, texts, places)
    indices = _indices(found)

    def excerpts(code: str, example: Example) -> list[Excerpt]:
        place = _place_of(example, indices)
        own = next((row for row in refused.get(place, ()) if row["code"] == code), None)
        if own is not None:
            return refused_excerpts(own, reading)
        return excerpts_of(code, pairs.get(place, ()), reading)

    findings = [
        _with_texts(one, [excerpts(one.code, example) for example in one.examples[:MOST_ROWS]])
        for one in report.findings
    ]
    return report.model_copy(update={"findings": findings})


def _with_texts(finding: Finding, texts: Sequence[Sequence[Excerpt]]) -> Finding:
    """Return the finding with the text of its first places."""
    first = [
        example.model_copy(update={"excerpts": list(some)})
        for example, some in zip(finding.examples, texts, strict=False)
    ]
    return finding.model_copy(update={"examples": first + finding.examples[len(first) :]})


def chunks_named(report: Report, found: ScanResult) -> set[str]:
    """Return the names of the chunks that have the first rows of each finding."""
    places = _places(report, found)
    return {
        found.parts[part].name for kind in ("keys", "lines") for part, _ in _at(found, kind, places)
    }


def _at(found: ScanResult, kind: str, places: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield the parts that have some places, with the rows there and their number, `row`."""
    parts = read_parts(found.root)
    sources = set(places["source_index"])
    for part in range(len(parts.names)):
        if int(parts.sources[part]) not in sources:
            continue
        rows = read_narrow(parts, part, kind).with_row_index("row")
        some = rows.join(places, on=_PLACE, how="semi", maintain_order="left")
        if len(some):
            yield part, some


def full_report(build: Build, most: int = EXAMPLES) -> Report:
    """Return the report of a build with `most` places of each code; refused rows have their text.

    That text is in `rejected/`, which a shared copy may lack.
    """
    report = report_of(build)
    if not build.has_rejected:
        return report
    rejected = build.rejected()
    settings = (build.manifest.config or {}).get("checks") or {}
    reading, met = Reading(CheckLimits.model_validate(settings)), count_rows(rejected, most)

    def restore(finding: Finding) -> Finding:
        if finding.code not in met or finding.severity != "E":
            return finding
        of_code = rejected.filter(pc.equal(rejected["code"], finding.code))
        texts = [refused_excerpts(row, reading) for row in of_code.slice(0, MOST_ROWS).to_pylist()]
        places = [example_at(place) for place in met[finding.code].first]
        return _with_texts(finding.model_copy(update={"examples": places}), texts)

    return report.model_copy(update={"findings": [restore(one) for one in report.findings]})


def _places(report: Report, found: ScanResult) -> pl.DataFrame:
    """Return file and number of the first rows of each finding."""
    indices = _indices(found)
    wanted = {
        _place_of(example, indices)
        for finding in report.findings
        for example in finding.examples[:MOST_ROWS]
    }
    schema = {"source_index": pl.Int32, "line": pl.Int64}
    return pl.DataFrame(sorted(wanted), schema=schema, orient="row")


def _indices(found: ScanResult) -> dict[str, int]:
    return {file.file.source: file.file.index for file in found.files}


def _place_of(example: Example, indices: Mapping[str, int]) -> tuple[int, int]:
    number = example.line if example.element is None else example.element
    return indices[example.source], number


def _pairs_at(found: ScanResult, texts: Parts, places: pl.DataFrame) -> Rows:
    """Return the records of some rows that passed the checks of rows, kept or not."""
    rows: Rows = {}
    for part, some in _at(found, "keys", places):
        records = gather(texts, texts.start_of(part) + some["row"].to_numpy().astype(np.int64))
        rows = _with_places(rows, some, records.select(SIDES).to_pylist())
    return rows


def _refused_at(found: ScanResult, texts: Parts, places: pl.DataFrame) -> Rows:
    """Return the rows of REJECTED of some rows that failed the checks of rows or were not read."""
    columns = ["code", "message", "raw", "pair"]
    rows: Rows = {}
    for part, some in _at(found, "lines", places):
        table = open_part(texts, part, "rejected").select(columns)
        rows = _with_places(rows, some, table.take(some["row"].to_arrow()).to_pylist())
    return rows


def _with_places(rows: Rows, places: pl.DataFrame, more: Sequence[Mapping[str, Any]]) -> Rows:
    for place, row in zip(places.select(_PLACE).iter_rows(), more, strict=True):
        rows.setdefault(place, []).append(row)
    return rows
