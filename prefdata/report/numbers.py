"""Tables to the numbers of a report: the conservation law, findings, lengths."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.check import CHECKS, Check
from prefdata.errors import UsageError
from prefdata.report.model import Example, Finding, Lengths
from prefdata.store.manifest import InputSeal, LineClasses
from prefdata.survey import CheckedFile, count_codes
from prefdata.tokens.codes import TOKEN_CHECKS

CATALOG = CHECKS | TOKEN_CHECKS
_EXAMPLES = 5

# Faults of raw rows; `prefdata explain PD101` tells of all of them.
FAULTS = {
    "R201": "not_json",
    "R202": "not_utf8",
    "R203": "lone_surrogate",
    "R204": "nul_character",
    "R205": "not_finite",
    "R206": "number_too_long",
    "R207": "duplicate_key",
    "R208": "too_deep",
    "R209": "not_an_object",
    "R210": "wrong_type",
    "R211": "missing_field",
    "R212": "row_too_long",
}
_FAULT_PARENTS = {"R210": "PD104", "R211": "PD103"}


def describe_code(code: str) -> Check:
    """What is known of a code; a fault of raw rows has the text of the check it is a case of."""
    if code in FAULTS:
        parent = CATALOG[_FAULT_PARENTS.get(code, "PD101")]
        return parent._replace(code=code, name=FAULTS[code])
    if code not in CATALOG:
        known = ", ".join(sorted(CATALOG | FAULTS))
        raise UsageError("C140", code, "no such code", f"the codes are {known}")
    return CATALOG[code]


def class_of_lines(
    files: list[CheckedFile], kept: pa.Table, duplicates: pa.Table, rejected: pa.Table
) -> list[LineClasses]:
    """What became of the lines of each file: kept if any of its pairs is, else the next class."""
    classes = (("kept", kept), ("duplicates", duplicates), ("rejected", rejected))
    places = [
        pl.DataFrame(
            {"file": pl.Series(table["source_index"]), "line": pl.Series(table["line"])}
        ).with_columns(rank=pl.lit(rank))
        for rank, (_, table) in enumerate(classes)
    ]
    best = pl.concat(places).group_by("file", "line").agg(pl.col("rank").min())
    counted = best.group_by("file", "rank").len()
    counts = {(file, rank): count for file, rank, count in counted.iter_rows()}
    result = []
    for file in files:
        found = [counts.get((file.file.index, rank), 0) for rank in range(len(classes))]
        lines, blank = file.read.counts.lines, file.read.counts.blank
        assert lines == blank + sum(found), f"{file.file.name}: {lines} lines, {blank} + {found}"
        result.append(
            LineClasses(
                lines=lines,
                blank=blank,
                kept=found[0],
                duplicates=found[1],
                filtered=0,
                rejected=found[2],
            )
        )
    return result


def total_lines(classes: list[LineClasses]) -> LineClasses:
    """The sum over files."""
    names = LineClasses.model_fields
    return LineClasses(**{name: sum(getattr(part, name) for part in classes) for name in names})


def seal_inputs(files: list[CheckedFile], classes: list[LineClasses]) -> list[InputSeal]:
    """What the manifest says of each input."""
    return [
        InputSeal(
            name=file.file.name,
            bytes=file.read.size_bytes,
            sha256=file.read.sha256,
            layout=file.read.layout,
            lines=lines,
        )
        for file, lines in zip(files, classes, strict=True)
    ]


def list_findings(
    refused: pa.Table, found: pa.Table, counted: Mapping[str, int], num_lines: int
) -> list[Finding]:
    """Every code that was met: refused rows as E, found ones as W, and plain counts."""
    findings = [_finding(table, code, level, num_lines) for table, code, level in _coded(
        (refused, "E"), (found, "W")
    )]  # fmt: skip
    for code, count in counted.items():
        check = CATALOG[code]
        level: Literal["W", "I"] = "I" if check.severity == "I" else "W"
        findings.append(_describe(code, level, count, num_lines, []))
    return sorted(findings, key=lambda finding: (finding.code, finding.severity))


def _coded(
    *tables: tuple[pa.Table, Literal["E", "W"]],
) -> list[tuple[pa.Table, str, Literal["E", "W"]]]:
    return [(table, code, level) for table, level in tables for code in count_codes(table)]


def _finding(table: pa.Table, code: str, level: Literal["E", "W"], num_lines: int) -> Finding:
    rows = table.filter((pl.Series(table["code"]) == code).to_arrow())
    first = rows.slice(0, _EXAMPLES).select(["source", "line", "message"])
    examples = [Example(**row) for row in first.to_pylist()]
    return _describe(code, level, rows.num_rows, num_lines, examples)


def _describe(
    code: str,
    level: Literal["E", "W", "I"],
    count: int,
    num_lines: int,
    examples: list[Example],
) -> Finding:
    check = describe_code(code)
    return Finding(
        code=code,
        name=check.name,
        severity=level,
        count=count,
        share=round(count / max(num_lines, 1), 6),
        meaning=check.meaning,
        advice=check.advice,
        examples=examples,
    )


def measure_lengths(tables: list[pa.Table]) -> tuple[dict[str, Lengths] | None, float | None]:
    """Lengths of the parts, and the share of pairs whose chosen side is the longer one."""
    lengths = {
        part: np.concatenate([pl.Series(pc.list_value_length(t[f"{part}_ids"])) for t in tables])
        for part in ("prompt", "chosen", "rejected")
    }
    if not len(lengths["prompt"]):
        return None, None
    longer = np.sign(lengths["chosen"] - lengths["rejected"])
    share = float(np.mean((longer + 1) / 2))
    return {part: _lengths(values) for part, values in lengths.items()}, round(share, 6)


def _lengths(values: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Lengths:
    return Lengths(
        mean=round(float(values.mean()), 3),
        median=float(np.median(values)),
        p95=round(float(np.percentile(values, 95)), 3),
        max=int(values.max()),
    )
