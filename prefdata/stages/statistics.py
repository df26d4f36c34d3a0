"""Statistics of a report, from tables: lines, findings, lengths, biases, sources, splits.

The line counts add up: each line is kept, duplicate, filtered, rejected or blank.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.check.catalog import Check
from prefdata.check.rows.own import check_of
from prefdata.check.rows.profile import FEATURES
from prefdata.check.sets.bias import MIN_PAIRS
from prefdata.check.sets.statistics import area_under_curve
from prefdata.hashing import Numbers
from prefdata.read import InputFile
from prefdata.records.findings import CodeCount, Findings, Level, Location
from prefdata.records.keys import GROUP_ID
from prefdata.records.text import flat_text
from prefdata.report.explain import describe_code
from prefdata.report.figures import percent
from prefdata.report.lengths import PARTS, Measured, measure_parts
from prefdata.report.model import (
    Bias,
    Example,
    ExamplePair,
    Finding,
    Groups,
    Report,
    SeverityChange,
    SourceShare,
    SplitProof,
)
from prefdata.stages.scan import ScanResult, SurveyedFile
from prefdata.store.manifest import InputSeal, LineClasses, SeenPair, TextReading

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
MOST_SOURCES = 20
_MEASURED = {"chars": "length", **{name: name for name in FEATURES}}
_COMMON = 0.02  # of the pairs: a language that fewer have may be a mistake


def class_of_lines(
    found: ScanResult, refused: Sequence[int], not_drawn: Sequence[int] = ()
) -> list[LineClasses]:
    """Return the count of lines of each file by class: kept if any of its pairs is kept.

    Otherwise the class is the first that applies: duplicate, filtered, rejected. `refused` are
    indices in the keys of pairs that were refused at tokenization, `not_drawn` of those that a
    mixture leaves out.
    """
    kept_mask = found.stays([*refused, *not_drawn])
    places = found.keys.select("source_index", "line", "ordinal")
    leaked = found.decision.leaks.filter("dropped")["at"].to_numpy()
    contradictory = found.decision.contradictory.to_numpy()
    late = np.concatenate([leaked, contradictory, np.array(refused, np.int64)])
    classes = (
        places.filter(pl.Series(kept_mask)),
        places[found.decision.duplicates["at"]],
        places[[*found.decision.excluded, *not_drawn]],
        pl.concat([found.refused.select(places.columns), places[late.astype(np.int64)]]),
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
        numbers = zip(LineClasses.model_fields, (lines, blank, *of_file), strict=True)
        result.append(LineClasses(**dict(numbers)))
    return result


def _with_members(places: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """Return the lines of pairs, and those of the other rows that the pairs were made from."""
    own = places.select("source_index", "line")
    if members.is_empty():
        return own
    others = members.join(places, on=["source_index", "line", "ordinal"], how="semi")
    return pl.concat([own, others.select("source_index", line="member")])


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


def measure_tokens(tables: list[pa.Table]) -> Measured | None:
    """Return lengths in tokens of the pairs of token shards."""
    return measure_parts(
        {
            part: np.concatenate(
                [pl.Series(pc.list_value_length(table[f"{part}_ids"])) for table in tables]
            )
            for part in PARTS
        }
    )


def measure_characters(profile: pl.DataFrame) -> Measured | None:
    """Return lengths in characters of the pairs of PROFILE."""
    return measure_parts({part: profile[f"chars_{part}"].to_numpy() for part in PARTS})


def count_groups(keys: pl.DataFrame) -> Groups | None:
    """Count distinct prompts and completions of the pairs; None without pairs."""
    sides = pl.concat(
        [
            keys.select(*GROUP_ID, pl.col(side).alias("side"))
            for side in ("chosen_id", "rejected_id")
        ]
    )
    if not len(keys):
        return None
    return Groups(
        groups=keys.select(GROUP_ID).n_unique(), completions=sides.n_unique(), pairs=len(keys)
    )


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


def measure_biases(profile: pl.DataFrame) -> list[Bias]:
    """Return how well length and each format feature predict which side is chosen.

    A feature is measured on the pairs whose sides differ in it, length on all pairs.
    """
    found = []
    for column, name in _MEASURED.items():
        sides = [f"{column}_chosen", f"{column}_rejected"]
        rows = profile.select(pl.col(sides).cast(pl.Int64))
        if column != "chars":
            rows = rows.filter(pl.col(sides[0]) != pl.col(sides[1]))
        if len(rows) < MIN_PAIRS:
            continue
        chosen, rejected = (rows[side].to_numpy() for side in sides)
        area = area_under_curve(chosen, rejected)
        more = float(((np.sign(chosen - rejected) + 1) / 2).mean())
        what = "characters" if column == "chars" else name
        found.append(
            Bias(
                name=name,
                auc=round(area.value, 6),
                low=round(area.low, 6),
                high=round(area.high, 6),
                pairs=len(rows),
                sentence=f"Chosen has more {what} in {percent(more)} of the pairs"
                + (", equal ones counted half." if column == "chars" else " that differ in it."),
            )
        )
    return found


def measure_sources(
    profile: pl.DataFrame, source_index: pl.Series, files: Mapping[int, InputFile]
) -> list[SourceShare]:
    """Count pairs by source: as the config names it, or else its rows, or else by file."""
    index = source_index.cast(pl.Int64)

    def of_file(said: Callable[[InputFile], str | None]) -> pl.Series:
        values = {at: said(file) for at, file in files.items()}
        return index.replace_strict(values, return_dtype=pl.String)

    frame = profile.select(pl.col("origin", "licence").cast(pl.String)).with_columns(
        file=of_file(lambda file: file.source),
        name=of_file(lambda file: file.of.name),
        license=of_file(lambda file: file.of.license),
    )
    counted = (
        frame.select(
            licence=pl.coalesce("license", "licence"), name=pl.coalesce("name", "origin", "file")
        )
        .group_by("name", "licence")
        .len()
        .sort("len", "name", descending=[True, False])
    )
    return [
        SourceShare(name=name, pairs=pairs, share=round(pairs / len(frame), 6), licence=licence)
        for name, licence, pairs in counted.head(MOST_SOURCES)
        .select("name", "licence", "len")
        .iter_rows()
    ]


def measure_languages(profile: pl.DataFrame) -> list[str]:
    """Return the languages of the prompts, the most frequent first."""
    known = profile["language"].cast(pl.String)
    counted = known.filter(known != "").value_counts(sort=True)
    return [str(name) for name, num in counted.iter_rows() if num >= _COMMON * len(profile)]


def prove_splits(
    keys: pl.DataFrame, split_key: Numbers, rows: Mapping[str, Sequence[int]], *, words: int,
    threshold: float,
) -> SplitProof:  # fmt: skip
    """Count the clusters of near-duplicate prompts, and those that are in two splits.

    `split_key` is the cluster of each row of `keys`; `rows` are the indices of each split's rows.
    """
    splits = pl.concat(
        pl.DataFrame({"at": pl.Series(list(places), dtype=pl.Int64)}).with_columns(
            split=pl.lit(name)
        )
        for name, places in rows.items()
    )
    at = splits["at"]
    prompts = keys.select(GROUP_ID)[at].with_columns(
        splits["split"], cluster=pl.Series(split_key)[at]
    )
    clusters = prompts.group_by("cluster").agg(
        pl.col("split").n_unique(), size=pl.struct(GROUP_ID).n_unique()
    )
    return SplitProof(
        threshold=threshold,
        unit=f"word {words}-grams",
        leaked=int((clusters["split"] > 1).sum()),
        clusters=len(clusters),
        largest=int(clusters["size"].max() or 0),  # type: ignore[arg-type]
    )
