"""Tables to the numbers of a report: the conservation law, findings, lengths."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.findings import Findings, Level, Met
from prefdata.report.explain import describe_code
from prefdata.report.model import Example, Finding, Lengths
from prefdata.store.manifest import InputSeal, LineClasses
from prefdata.survey import Survey, SurveyedFile


def class_of_lines(found: Survey, refused: Sequence[int]) -> list[LineClasses]:
    """What became of the lines of each file: kept if any of its pairs is, else the next class.

    `refused` are places in the keys of pairs that stayed until they became tokens.
    """
    stays = found.decision.stays.copy()
    stays[list(refused)] = False
    places = found.keys.select("source_index", "line", "ordinal")
    late = np.append(found.decision.contradictory.to_numpy(), np.array(refused, np.int64))
    classes = (
        places.filter(pl.Series(stays)),
        places[found.decision.duplicates["at"]],
        pl.concat([found.refused, places[late.astype(np.int64)]]),
    )
    ranked = [
        _with_members(lines, found.members).with_columns(rank=pl.lit(rank))
        for rank, lines in enumerate(classes)
    ]
    best = pl.concat(ranked).group_by("source_index", "line").agg(pl.col("rank").min())
    counted = best.group_by("source_index", "rank").len()
    counts = {(file, rank): count for file, rank, count in counted.iter_rows()}
    result = []
    for file in found.files:
        of_file = [counts.get((file.file.index, rank), 0) for rank in range(len(classes))]
        lines, blank = file.counts.lines, file.counts.blank
        assert lines == blank + sum(of_file), (
            f"{file.file.name}: {lines} lines, {blank} + {of_file}"
        )
        result.append(
            LineClasses(
                lines=lines,
                blank=blank,
                kept=of_file[0],
                duplicates=of_file[1],
                filtered=0,
                rejected=of_file[2],
            )
        )
    return result


def _with_members(places: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """The lines of pairs and rows, and those of all other rows that the pairs came out of."""
    own = places.select("source_index", "line")
    if members.is_empty():
        return own
    others = members.join(places, on=["source_index", "line", "ordinal"], how="semi")
    return pl.concat([own, others.select("source_index", line="member")])


def total_lines(classes: list[LineClasses]) -> LineClasses:
    """The sum over files."""
    names = LineClasses.model_fields
    return LineClasses(**{name: sum(getattr(part, name) for part in classes) for name in names})


def seal_inputs(files: list[SurveyedFile], classes: list[LineClasses]) -> list[InputSeal]:
    """What the manifest says of each input."""
    return [
        InputSeal(
            name=file.file.name,
            bytes=file.size_bytes,
            sha256=file.sha256,
            layout=file.layout,
            lines=lines,
        )
        for file, lines in zip(files, classes, strict=True)
    ]


def list_findings(met: Findings, num_lines: int) -> list[Finding]:
    """Every code that was met, with what is known of it."""
    findings = [
        _describe(code, level, found, num_lines)
        for level, codes in met.items()
        for code, found in codes.items()
        if found.num
    ]
    return sorted(findings, key=lambda finding: (finding.code, finding.severity))


def _describe(code: str, level: Level, found: Met, num_lines: int) -> Finding:
    check = describe_code(code)
    return Finding(
        code=code,
        name=check.name,
        severity=level,
        count=found.num,
        share=round(found.num / max(num_lines, 1), 6),
        meaning=check.meaning,
        advice=check.advice,
        examples=[Example(source=s, line=line, message=m) for s, line, m in found.first],
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
