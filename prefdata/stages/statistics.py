"""Statistics of a report, from tables: lines, findings, lengths, biases, sources, splits.

The line counts add up: each line is kept, duplicate, filtered, rejected or blank.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.check.catalog import Check
from prefdata.check.rows.own import check_of
from prefdata.check.rows.profile import FEATURES
from prefdata.check.sets.bias import MIN_PAIRS
from prefdata.check.sets.statistics import area_of_counts
from prefdata.check.sets.tally import LENGTH, SIDES, Tally
from prefdata.read import InputFile
from prefdata.records.findings import CodeCount, Findings, Level, Location
from prefdata.records.text import flat_text
from prefdata.report.explain import describe_code
from prefdata.report.figures import percent
from prefdata.report.lengths import (
    PARTS,
    LengthSums,
    Measured,
    add_lengths,
    count_lengths,
    measure_sums,
)
from prefdata.report.model import (
    Bias,
    Example,
    ExamplePair,
    Finding,
    Report,
    SeverityChange,
    SourceShare,
)
from prefdata.stages.scan import ScanResult, SurveyedFile
from prefdata.stages.settle import RANKS
from prefdata.store.manifest import InputSeal, LineClasses, SeenPair, TextReading

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
MOST_SOURCES = 20
_MEASURED = {"chars": "length", **{name: name for name in FEATURES}}
_COMMON = 0.02  # of the pairs: a language that fewer have may be a mistake


def class_of_lines(
    found: ScanResult, classes: Mapping[int, Mapping[str, int]]
) -> list[LineClasses]:
    """Return the count of lines of each file by class: kept if any of its pairs is kept.

    Otherwise the class is the first that applies: duplicate, filtered, rejected. `classes` has the
    counts of those, by input.
    """
    result = []
    for file in found.files:
        of_file = [classes.get(file.file.index, {}).get(name, 0) for name in RANKS]
        lines, blank = file.counts.lines, file.counts.blank
        assert lines == blank + sum(of_file), (
            f"{file.file.name}: {lines} lines, {blank} + {of_file}"
        )
        numbers = zip(LineClasses.model_fields, (lines, blank, *of_file), strict=True)
        result.append(LineClasses(**dict(numbers)))
    return result


def total_lines(classes: list[LineClasses]) -> LineClasses:
    """Return the sum over files."""
    names = LineClasses.model_fields
    return LineClasses(**{name: sum(getattr(part, name) for part in classes) for name in names})


def _with_line(pair: SeenPair | None, file: SurveyedFile) -> SeenPair | None:
    """Return a pair whose line is that of the file, if it was the number of an element."""
    if pair is None or file.element_lines is None:
        return pair
    line = file.element_lines[pair.line - 1]
    return pair.model_copy(update={"line": line, "element": pair.line})


def seal_inputs(
    found: ScanResult, classes: list[LineClasses], seen: Mapping[int, SeenPair], *, drawn: bool
) -> list[InputSeal]:
    """Return the manifest's entry of each input; `seen` has first pairs, by input index.

    `drawn`: inputs that are one set are split by prompt.
    """
    splits = [
        one._replace(said_by="drawn") if drawn and one.said_by == "none" else one
        for one in found.splits.files
    ]
    return [
        InputSeal(
            name=file.file.source,
            bytes=file.size_bytes,
            sha256=file.sha256,
            layout=file.layout,
            lines=lines,
            reading=file.reading,
            text=file.text and TextReading(form=file.text.name, why=file.text.why),
            first_pair=_with_line(seen.get(file.file.index), file),
            split=split.split,
            split_from=split.said_by,
        )
        for file, lines, split in zip(found.files, classes, splits, strict=True)
    ]


def list_findings(met: Findings, lines: LineClasses, num_pairs: int) -> list[Finding]:
    """Return every code that was found, with meaning, advice and examples: errors first."""
    totals = {"row": lines.lines - lines.blank, "pair": num_pairs, "word": num_pairs}
    findings = [
        _describe(code, level, found, totals)
        for level, codes in met.items()
        for code, found in codes.items()
        if found.num
    ]
    return sorted(findings, key=lambda one: ("EWI".index(one.severity), -one.share, one.code))


def without_examples(seal: InputSeal) -> InputSeal:
    """Return an input without example values of unread columns; only a validation shows them."""
    columns = [column.model_copy(update={"example": ""}) for column in seal.reading.not_read]
    reading = seal.reading.model_copy(update={"not_read": columns})
    return seal.model_copy(update={"reading": reading})


def hide_contents(report: Report, rejected: pa.Table) -> Report:
    """Return the report without text of rejected rows, so that it can be shared.

    `full_report` restores it from `rejected/`.
    """
    refused = set(zip(*(rejected[name].to_pylist() for name in ("source", "line")), strict=True))
    findings = []
    for finding in report.findings:
        examples = [
            example.model_copy(
                update={"message": _QUOTED.sub("'…'", example.message), "excerpts": []}
            )
            if (example.source, example.line) in refused
            else example
            for example in finding.examples
        ]
        findings.append(finding.model_copy(update={"examples": examples}))
    return report.model_copy(update={"findings": findings})


def _describe(code: str, level: Level, found: CodeCount, totals: Mapping[str, int]) -> Finding:
    check = describe_code(code)
    assert isinstance(check, Check)
    return Finding(
        code=code,
        name=check.name,
        severity=level,
        count=found.num,
        unit=check.counts,
        share=round(min(found.num / max(totals[check.counts], 1), 1.0), 6),
        meaning=check.meaning,
        advice=check.advice,
        examples=[example_at(place) for place in found.first],
    )


def example_at(place: Location) -> Example:
    """Return a location as a report has it; rows of Parquet and Arrow have no byte offset."""
    offset = place.offset if place.offset >= 0 else None
    return Example(**{**place._asdict(), "offset": offset})


def measure_tokens(tables: Iterable[pa.Table]) -> Measured | None:
    """Return lengths in tokens of the pairs of token shards."""
    return measure_sums(
        add_lengths(
            count_lengths(
                {
                    part: pl.Series(pc.list_value_length(table[f"{part}_ids"])).to_numpy()
                    for part in PARTS
                }
            )
            for table in tables
        )
    )


def measure_characters(tally: Tally) -> Measured | None:
    """Return lengths in characters of the pairs of a tally."""
    counts = {part: tally.counts(LENGTH, part) for part in PARTS}
    return measure_sums(LengthSums(counts, *tally.of(LENGTH)))


def severity_changes(changes: Mapping[str, str]) -> list[SeverityChange]:
    """Return the changes that a config's `severity` makes, by code, without repeated defaults."""
    return [
        SeverityChange.model_validate({"code": code, "was": was, "now": level})
        for code, level in sorted(changes.items())
        if (was := check_of(code).severity) != level
    ]


def example_pairs(records: pa.Table, files: Iterable[SurveyedFile]) -> list[ExamplePair]:
    """Return the pairs of a table of RECORDS, each text cut to 600 characters."""
    begins = {file.file.source: file.element_lines for file in files}
    found = []
    for row in records.select(["source", "line", *PARTS]).to_pylist():
        source, line, lines = row["source"], row["line"], begins[row["source"]]
        texts = {part: flat_text(row[part]) for part in PARTS}
        place = {"line": line} if lines is None else {"line": lines[line - 1], "element": line}
        found.append(ExamplePair.model_validate({"source": source, **place, **texts}))
    return found


def measure_biases(tally: Tally) -> list[Bias]:
    """Return how well length and each format feature predict which side is chosen.

    A feature is measured on the pairs whose sides differ in it, length on all pairs.
    """
    found = []
    for column, name in _MEASURED.items():
        pairs, num_more, equal = tally.of(column)
        if pairs < MIN_PAIRS:
            continue
        area = area_of_counts(*(tally.counts(column, side) for side in SIDES))
        more = (num_more + equal / 2) / pairs
        what = "characters" if column == LENGTH else name
        found.append(
            Bias(
                name=name,
                auc=round(area.value, 6),
                low=round(area.low, 6),
                high=round(area.high, 6),
                pairs=pairs,
                sentence=f"Chosen has more {what} in {percent(more)} of the pairs"
                + (", equal ones counted half." if column == LENGTH else " that differ in it."),
            )
        )
    return found


def measure_sources(tally: Tally, files: Mapping[int, InputFile]) -> list[SourceShare]:
    """Count pairs by source: as the config names it, or else its rows, or else by file."""
    index = tally.names["source_index"].cast(pl.Int64)

    def of_file(said: Callable[[InputFile], str | None]) -> pl.Series:
        values = {at: said(file) for at, file in files.items()}
        return index.replace_strict(values, return_dtype=pl.String)

    frame = tally.names.with_columns(
        file=of_file(lambda file: file.source),
        name=of_file(lambda file: file.of.name),
        license=of_file(lambda file: file.of.license),
    )
    counted = (
        frame.select(
            "num",
            licence=pl.coalesce("license", "licence"),
            name=pl.coalesce("name", "origin", "file"),
        )
        .group_by("name", "licence")
        .agg(pl.col("num").sum())
        .sort("num", "name", "licence", descending=[True, False, False])
    )
    return [
        SourceShare(name=name, pairs=pairs, share=round(pairs / tally.rows, 6), licence=licence)
        for name, licence, pairs in counted.head(MOST_SOURCES)
        .select("name", "licence", "num")
        .iter_rows()
    ]


def measure_languages(tally: Tally) -> list[str]:
    """Return the languages of the prompts, the most frequent first, then the earliest."""
    known = tally.languages.filter(pl.col("language") != "")
    counted = known.sort("num", "at", descending=[True, False])
    return [
        str(name)
        for name, num in counted.select("language", "num").iter_rows()
        if num >= _COMMON * tally.rows
    ]
