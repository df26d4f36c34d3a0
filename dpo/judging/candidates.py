"""Candidates to judge: a prompt and its completions, from a file of either kind.

Rows with `prompt` and `completions`, as dpo-sample and dpo-judge write them; or pairs of any
layout, by prefdata's reader. Ranks that a file has are labels: kept, and never shown to a judge.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dpo.errors import UsageError
from prefdata.read import (
    Columns,
    InputFile,
    Limits,
    OpenFile,
    RowOptions,
    TextMode,
    TextRule,
    expand_inputs,
    open_rows,
    read_part,
)
from prefdata.read.adapt.widened import plain_rows
from prefdata.read.faults import RowError
from prefdata.read.files.jsonl import Tally
from prefdata.records.text import FORM_COLUMN

_REMEDY = 'a row is {"prompt": …, "completions": [{"text": …}, …]}, as dpo-sample writes it'
_JUDGED = ("verdicts", "judge")
_SIDES = ("chosen", "rejected")


class Candidate(NamedTuple):
    """One completion."""

    value: Any
    """The completion as the output has it: a text, or messages."""
    text: str
    """What a judge is shown."""
    rest: dict[str, Any]
    """Everything else that the file says of it; labels as `given_rank` and `given_score`."""
    order: float | None
    """Its place by the file's own label, higher is better; None without one."""


class CandidateRow(NamedTuple):
    """One prompt and its completions."""

    place: str
    prompt: Any
    """The prompt as the output has it: a text, or messages."""
    shown: str
    candidates: tuple[Candidate, ...]
    rest: dict[str, Any]
    verdicts: list[dict[str, Any]]
    """Those of a file of verdicts."""


class CandidateFile(NamedTuple):
    """The rows of a file, the files that were read, and notes on rows that are left out."""

    rows: list[CandidateRow]
    paths: list[Path]
    notes: list[str]


def read_candidates(name: str, text: TextMode = "auto") -> CandidateFile:
    """Return all candidates of a file; raise T179 for a file without any, or a faulty row."""
    rows: list[CandidateRow] = []
    notes: list[str] = []
    files = expand_inputs([name])
    for file in files:
        if _has_candidates(file):
            rows += _candidates_of(file, notes)
        else:
            rows += _pairs_of(file, text, notes)
    if not rows:
        raise UsageError("T179", name, "has no candidates", _REMEDY)
    return CandidateFile(rows, [file.path for file in files], notes)


def show(turns: Any) -> str:
    """Return a prompt or a completion as one text; roles are named if there are several turns."""
    if isinstance(turns, str):
        return turns
    texts = [_content(turn) for turn in turns]
    if len(turns) == 1:
        return texts[0]
    roles = (str(turn.get("role", "")).capitalize() for turn in turns)
    return "\n\n".join(f"{role}: {content}" for role, content in zip(roles, texts, strict=True))


def _content(turn: dict[str, Any]) -> str:
    content, calls = str(turn.get("content") or ""), turn.get("tool_calls")
    if not calls:
        return content
    return f"{content}\n{calls if isinstance(calls, str) else orjson.dumps(calls).decode()}"


def _rows_of(file: InputFile) -> Iterator[tuple[str, dict[str, Any] | RowError]]:
    """Yield the place and the value of each row."""
    for block in OpenFile(file, Limits()):
        for line, _, _, value in plain_rows(block, Limits(), Tally()):
            yield f"{file.name}:{line}", value


def _has_candidates(file: InputFile) -> bool:
    """Return whether the first row is a prompt with completions that have a text."""
    first = next((row for _, row in _rows_of(file) if not isinstance(row, RowError)), {})
    items = first.get("completions")
    is_list = isinstance(items, list) and "prompt" in first
    return is_list and all(isinstance(item, dict) and "text" in item for item in items or ())


def _candidates_of(file: InputFile, notes: list[str]) -> Iterator[CandidateRow]:
    """Yield the rows of a file of candidates, and note those with U+0000, which no build reads."""
    left_out: list[str] = []
    for place, row in _rows_of(file):
        if isinstance(row, RowError) and row.code == "R204":
            left_out.append(place)
        else:
            yield _candidate_row(place, _object(place, row))
    if left_out:
        num, first = len(left_out), left_out[0]
        notes.append(f"{num:,} rows with U+0000 are not judged; the first is {first} [R204]")


def _object(place: str, row: dict[str, Any] | RowError) -> dict[str, Any]:
    if isinstance(row, RowError):
        problem = f"is not a row: {row.message} ({row.code})"
        raise UsageError("T179", place, problem, _REMEDY)
    return row


def _candidate_row(place: str, row: dict[str, Any]) -> CandidateRow:
    prompt, items = row.get("prompt"), row.get("completions")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError("T179", place, "`completions` is not a list of objects", _REMEDY)
    if not _is_said(prompt):
        raise UsageError("T179", place, "`prompt` is neither a text nor messages", _REMEDY)
    if not all(_is_said(item.get("text")) for item in items):
        raise UsageError("T179", place, "a completion has no `text`", _REMEDY)
    orders = orders_of(items)
    rest = {
        key: value
        for key, value in row.items()
        if key not in ("prompt", "completions", *_JUDGED) and value is not None
    }
    found = [_candidate(item, order) for item, order in zip(items, orders, strict=True)]
    verdicts = row.get("verdicts") if isinstance(row.get("verdicts"), list) else []
    return CandidateRow(place, prompt, show(prompt), tuple(found), rest, list(verdicts or []))


def _candidate(item: dict[str, Any], order: float | None) -> Candidate:
    rest = {key: value for key, value in item.items() if key not in ("text", "rank", "score")}
    for name in ("rank", "score"):
        if item.get(name) is not None:
            rest.setdefault(f"given_{name}", item[name])
    return Candidate(item["text"], show(item["text"]), rest, order)


def orders_of(items: Sequence[dict[str, Any]]) -> list[float | None]:
    """Return each completion's place by rank or else by score, higher is better; None without.

    As in a build, all completions of a row need one.
    """
    for name, sign in (("rank", -1.0), ("score", 1.0)):
        values = [item.get(name) for item in items]
        if values and all(type(value) in (int, float) for value in values):
            return [sign * float(value) for value in values if value is not None]
    return [None] * len(items)


def _is_said(value: Any) -> bool:
    """Return whether a value is a text, or messages."""
    is_list = isinstance(value, list) and bool(value)
    return isinstance(value, str) or (
        is_list and all(isinstance(turn, dict) and "content" in turn for turn in value)
    )


def _pairs_of(file: InputFile, text: TextMode, notes: list[str]) -> Iterator[CandidateRow]:
    """Yield the pairs of a file as rows of two candidates, and note the rows that are refused."""
    opened = open_rows(file, RowOptions(None), Columns(), TextRule(text, has_template=True))
    num_refused, first = 0, ""
    for block in opened.blocks:
        part = read_part(file, block, opened.options)
        for refused in part.rejected.select(["line", "code", "message"]).to_pylist():
            first = first or f"line {refused['line']}: {refused['message']} [{refused['code']}]"
            num_refused += 1
        for record in part.records.to_pylist():
            yield _row_of_pair(file, record)
    if opened.text is not None:
        notes.append(f"{file.name}: plain text as {opened.text.name}: {opened.text.why}")
    if num_refused:
        notes.append(f"{file.name}: {num_refused:,} rows give no pair; the first, {first}")


def _row_of_pair(file: InputFile, record: dict[str, Any]) -> CandidateRow:
    is_text = record["form"] == "text"
    prompt: Any = _plain(record["prompt"])
    prompt = show(prompt) if is_text else prompt
    rest: dict[str, Any] = {FORM_COLUMN: "text"} if is_text else {}
    if record["tools"] is not None:
        rest["tools"] = orjson.loads(record["tools"])
    meta = orjson.loads(record["meta"])
    rest |= {"meta": meta} if meta else {}
    return CandidateRow(
        f"{file.name}:{record['line']}", prompt, show(prompt),
        tuple(_side(record, side, rank) for rank, side in enumerate(_SIDES, 1)), rest, [],
    )  # fmt: skip


def _side(record: dict[str, Any], side: str, rank: int) -> Candidate:
    turns = _plain(record[side])
    is_plain = len(turns) == 1 and turns[0].keys() <= {"role", "content"}
    known = {
        "model": record[f"model_{side}"],
        "given_score": record[f"score_{side}"],
        "given_rank": record[f"{side}_rank"] or rank,
    }
    rest = {name: value for name, value in known.items() if value is not None}
    value = turns[0]["content"] if is_plain else turns
    return Candidate(value, show(value), rest, -float(rank))


def _plain(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages without their nulls."""
    return [{key: value for key, value in turn.items() if value is not None} for turn in turns]
