"""Rows of a build by code: refused rows, duplicates, and kept pairs with a finding.

Each is shown with its place, the reason, its text, and the passages that the reason is about.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from rich.text import Text

from prefdata.check import CheckLimits, RowChecks, examine_rows
from prefdata.check.catalog import Check, catalog
from prefdata.check.rows.evidence import Reading, Span, evidence_of
from prefdata.check.rows.rules import rules_of
from prefdata.errors import UsageError
from prefdata.read import Columns, InputFile, Limits, RowOptions, TextRule, open_rows, read_part
from prefdata.read.adapt.ids import shorten
from prefdata.report.explain import describe_code
from prefdata.report.figures import count
from prefdata.report.form import report_of
from prefdata.report.lengths import PARTS
from prefdata.report.model import Example, Finding
from prefdata.report.rows import place_of, read_pairs, text_path
from prefdata.report.safe import plain
from prefdata.report.views import ShowOptions
from prefdata.store.reader import Build
from prefdata.tokens.tokenizer import load_sealed

_MOST_CHARACTERS = 600  # of a turn
_MOST_RAW = 400  # bytes of a row that was not read as a pair
_STYLES = {"prompt": "cyan", "chosen": "green", "rejected": "red"}
_MARKS = ("{!", "!}")


class Listed(NamedTuple):
    """One row or pair, and why it is listed."""

    place: str
    code: str
    said: str
    pair: Mapping[str, Any] | None = None
    """Its prompt, chosen and rejected, each a list of turns."""
    spans: Sequence[Span] = ()
    raw: bytes = b""
    """Its bytes, if it was not read as a pair."""
    kept: "Listed | None" = None
    """The pair that is kept instead, if its text differs."""


class Listing(NamedTuple):
    """The first rows of a list, and the number of all of them."""

    noun: str
    total: int
    rows: Iterator[Listed]
    why: str = ""
    """What follows the noun: ` with PD209`."""


def list_rows(build: Build, how: ShowOptions) -> Listing | None:
    """Return the rows of the view that the options name; None if they name no list."""
    if how.code is not None:
        return list_code(build, how.code, most=how.most, tokenizer=how.tokenizer)
    if how.rejected:
        return list_rejected(build)
    if how.near:
        return list_code(build, "PD402", most=how.most)
    return list_duplicates(build, near=False) if how.duplicates else None


def list_rejected(build: Build, code: str | None = None) -> Listing:
    """Return the rows that were refused, or those refused under one code."""
    table = build.rejected()
    if code is not None:
        table = table.filter(pc.equal(table["code"], code))
    why = "" if code is None else f" under {code}"
    return Listing("refused row", table.num_rows, _refused(table, _reading_of(build)), why)


def _refused(table: pa.Table, reading: Reading) -> Iterator[Listed]:
    for batch in table.to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            place = Example(
                source=row["source"], line=row["line"], message="", element=row["element"]
            ).place
            pair = None if row["pair"] is None else orjson.loads(row["pair"])
            spans = _spans(row["code"], pair, reading)
            yield Listed(place, row["code"], row["message"], pair, spans, row["raw"] or b"")


def _spans(code: str, pair: Mapping[str, Any] | None, reading: Reading) -> Sequence[Span]:
    """Return the passages that a shipped check of rows is about."""
    known = pair is not None and code in rules_of(reading.limits)
    return evidence_of(code, pair or {}, reading).spans if known else ()


def list_duplicates(build: Build, *, near: bool) -> Listing:
    """Return the copies that were dropped, or the near-duplicates, each with the pair kept.

    If near-duplicates are only a warning, both are kept.
    """
    table = build.duplicates()
    is_near = pc.is_valid(table["pair"])
    table = table.filter(is_near if near else pc.invert(is_near))
    if near and not table.num_rows:
        table = build.near_duplicates()
    rows = _near_duplicates(build, table) if near else _copies(build, table)
    return Listing("near-duplicate" if near else "copy", table.num_rows, rows)


def _copies(build: Build, table: pa.Table) -> Iterator[Listed]:
    for row, _, kept in _with_pairs(build, table):
        said = f"a copy of {place_of(row, 'kept_')}, which is kept"
        yield Listed(place_of(row), "PD401", said, kept)


def _near_duplicates(build: Build, table: pa.Table) -> Iterator[Listed]:
    for row, own, kept in _with_pairs(build, table):
        is_dropped, other = row["pair"] is not None, place_of(row, "kept_")
        said = f"similarity {row['similarity']:.2f} to {other}, which is kept"
        pair = orjson.loads(row["pair"]) if is_dropped else own
        instead = Listed(other, "PD402", "kept instead" if is_dropped else "kept", kept)
        said += "" if is_dropped else " too"
        yield Listed(place_of(row), "PD402", said, pair, kept=instead if kept else None)


def _with_pairs(
    build: Build, table: pa.Table
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Yield rows of DUPLICATES, each with its own pair and the kept one, if they are in `text/`."""
    for batch in table.to_batches(max_chunksize=64):
        rows = batch.to_pylist()
        wanted = {(row[f"{k}source"], row[f"{k}line"]) for row in rows for k in ("", "kept_")}
        pairs = {
            (pair["source"], pair["line"], pair["ordinal"]): pair
            for pair in _pairs_at(build, wanted)
        }
        for row in rows:
            own, kept = (
                pairs.get((row[f"{k}source"], row[f"{k}line"], row[f"{k}ordinal"]))
                for k in ("", "kept_")
            )
            yield row, own, kept


def list_code(build: Build, code: str, *, most: int, tokenizer: str | None = None) -> Listing:
    """Return all rows with a code: refused ones, dropped ones, or kept pairs that have it."""
    check = describe_code(code)
    if not isinstance(check, Check):
        problem = "is a code of an error, which no row has"
        raise UsageError("C121", check.code, problem, f"see `prefdata explain {check.code}`")
    code = check.code
    refused = list_rejected(build, code) if build.has_rejected else Listing("row", 0, iter(()))
    if refused.total:
        return refused
    if code in ("PD401", "PD402"):
        found = list_duplicates(build, near=code == "PD402")
        if found.total:
            return found
    if code in rules_of(CheckLimits()) or code in _checks_of(build).own:
        return _kept_with(build, code, most, tokenizer)
    return _reported(build, code)


def _kept_with(build: Build, code: str, most: int, tokenizer: str | None) -> Listing:
    """Check the kept pairs for one code again, from the text shards."""
    settings = _checks_of(build)
    controls: Sequence[str] = ()
    if code == "PD210":
        controls = load_sealed(build.manifest.tokenizer, tokenizer).control_tokens
    others = dict.fromkeys((c for c in (*rules_of(settings), *settings.own) if c != code), "off")
    evaluations = tuple((build.manifest.config or {}).get("evaluations") or ())
    severity = {**others, code: "I", "PD608": "off"}
    checks = RowChecks.of(severity, controls, settings, evaluations, most)
    total, listed, start = 0, list[Listed](), 0
    for split in build.splits:
        for shard in build.shards(split):
            path = build.file(text_path(shard.name))
            met, rows = _examined(path, checks)
            total += met
            pairs = read_pairs(build, [start + row for row, _ in rows[: most - len(listed)]])
            for (_, said), pair in zip(rows, pairs, strict=False):
                spans = _spans(code, _as_pair(pair.text), checks.reading)
                where = f"{place_of(pair.text)} (row {pair.row} of the build)"
                listed.append(Listed(where, code, said, _as_pair(pair.text), spans))
            start += shard.rows
    return Listing("kept pair", total, iter(listed), f" with {code}")


def _examined(path: Path, checks: RowChecks) -> tuple[int, list[tuple[int, str]]]:
    """Return how many pairs of a text shard have the code, and row and message of the first."""
    file, total, found = InputFile(path, str(path), 0), 0, list[tuple[int, str]]()
    opened = open_rows(file, RowOptions(None, limits=Limits()), Columns(), TextRule())
    for block in opened.blocks:
        seen = examine_rows(read_part(file, block, opened.options).records, checks)
        for met in seen.counted.values():
            total += met.num
            found += [(place.line - 1, place.message) for place in met.first]
    return total, found


def list_finding(build: Build, finding: Finding) -> Listing:
    """Return the rows of a finding without checking pairs again.

    Kept pairs are those of its first places, which the report names.
    """
    if finding.unit == "word":
        return Listing("word", 0, iter(()))
    if build.has_rejected and (refused := list_rejected(build, finding.code)).total:
        return refused
    if finding.code in ("PD401", "PD402"):
        found = list_duplicates(build, near=finding.code == "PD402")
        if found.total:
            return found
    listing = _reported(build, finding.code)
    return listing if finding.examples else listing._replace(total=0)


def _reported(build: Build, code: str) -> Listing:
    """Return the places that the report names for a code, with the pairs that are kept there."""
    findings = [one for one in report_of(build).findings if one.code == code]
    examples = [example for finding in findings for example in finding.examples]
    wanted = {(one.source, one.line if one.element is None else one.element) for one in examples}
    pairs: dict[tuple[str, int], Mapping[str, Any]] = {}
    for pair in _pairs_at(build, wanted):
        pairs.setdefault((pair["source"], pair["line"]), pair)
    reading, rows = _reading_of(build), list[Listed]()
    for one in examples:
        kept = pairs.get((one.source, one.line if one.element is None else one.element))
        rows.append(Listed(one.place, code, one.message, kept, _spans(code, kept, reading)))
    total = sum(finding.count for finding in findings)
    return Listing(catalog()[code].counts, total, iter(rows), f" with {code}")


def _pairs_at(build: Build, places: Collection[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield the kept pairs that were made from the given rows: source and number."""
    lines = pa.array(sorted({line for _, line in places}), pa.int64())
    for split in build.splits if places else ():
        for table in build.text_parts(split):
            some = table.filter(pc.is_in(table["line"], lines))
            for row in some.to_pylist():
                if (row["source"], row["line"]) in places:
                    yield {**row, **_as_pair(row)}


def _as_pair(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a text shard with turns in place of verbatim text."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    sides = {
        part: [{"role": role, "content": text[part]}] if isinstance(text[part], str) else text[part]
        for part, role in roles.items()
    }
    return {**text, **sides}


def _reading_of(build: Build) -> Reading:
    return Reading(_checks_of(build))


def _checks_of(build: Build) -> CheckLimits:
    """Return the settings of the checks that the build was made with."""
    settings = (build.manifest.config or {}).get("checks") or {}
    return CheckLimits.model_validate(settings)


def show_listing(listing: Listing, most: int) -> Iterator[Text]:
    """Yield the first rows of a list, and the number of all."""
    shown = 0
    for item in islice(listing.rows, most):
        shown += 1
        yield from _shown(item)
        if item.kept is not None:
            yield from _shown(item.kept)
    rest = f"; the first {shown:,} are shown" if shown < listing.total else ""
    yield Text(f"{count(listing.total, listing.noun)}{listing.why}{rest}")


def _shown(item: Listed) -> Iterator[Text]:
    yield Text(plain(item.place), style="bold")
    yield Text(f"  {item.code}: {plain(item.said)}")
    if item.pair is None:
        yield Text(f"  {raw_text(item.raw)}", style="dim")
    for part in PARTS if item.pair is not None else ():
        yield from _shown_part(item, part)


def raw_text(raw: bytes) -> str:
    """Return the beginning of a row that was not read as a pair."""
    text = plain(raw[: _MOST_RAW + 1].decode("utf-8", "backslashreplace"))
    return shorten(text, _MOST_RAW)


def _shown_part(item: Listed, part: str) -> Iterator[Text]:
    assert item.pair is not None
    for at, turn in enumerate(item.pair[part] or ()):
        spans = [(s.start, s.end) for s in item.spans if (s.part, s.turn) == (part, at)]
        text = Text(f"  {part}", style=f"bold {_STYLES[part]}")
        text.append(f" {plain(turn['role'])}: ", style="dim")
        yield text.append(_marked(turn["content"], spans, private=item.code == "PD607"))
        if turn.get("tool_calls"):
            yield Text(f"    calls {plain(shorten(turn['tool_calls'], _MOST_RAW))}", style="dim")


def _marked(content: str, spans: Sequence[tuple[int, int]], *, private: bool) -> Text:
    """Return a turn's text with its passages between marks."""
    text = Text()
    for piece, is_passage in passages_of(content, spans, private=private):
        shown = plain(piece)
        if is_passage:
            text.append(f"{_MARKS[0]}{shown}{_MARKS[1]}", style="bold reverse")
        else:
            text.append(shown)
    return text


def passages_of(
    content: str, spans: Sequence[tuple[int, int]], *, private: bool
) -> Iterator[tuple[str, bool]]:
    """Yield a turn's text in pieces, and whether each is one of the passages.

    A long text is cut around its first passage; of a private one only the last characters remain.
    """
    first = min((start for start, _ in spans), default=0)
    begin = 0 if first < _MOST_CHARACTERS else first - _MOST_CHARACTERS // 3
    end = min(begin + _MOST_CHARACTERS, len(content))
    at = begin
    if begin:
        yield "…", False
    for start, stop in sorted(spans):
        start, stop = max(start, at), min(stop, end)
        if start >= stop and start != at:
            continue
        yield content[at:start], False
        passage = content[start:stop]
        shown = f"…{passage[-4:]}" if private and len(passage) >= 12 else passage
        shown = "…" if private and len(passage) < 12 else shown
        yield shown, True
        at = stop
    yield content[at:end] + ("…" if end < len(content) else ""), False
