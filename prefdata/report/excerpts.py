"""Excerpts of rows for a report: a little text of each part, cut around what a finding is about.

What looks private is left out of an excerpt, whatever the finding is about.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from prefdata.check.rows.evidence import Reading, evidence_of
from prefdata.check.rows.rules import rules_of
from prefdata.records.secrets import SHOWN, private_spans
from prefdata.report.lengths import PARTS
from prefdata.report.model import Excerpt

MOST_ROWS = 3  # of each finding that have excerpts
_MOST_CHARACTERS = 240  # of an excerpt
_MOST_TURNS = 2  # of each part
_MOST_RAW = 20_000  # bytes of a row, around the place of its fault
_SEARCHED = 400  # characters on either side that are searched for private data
_BYTE = re.compile(r"\b(?:at|near) byte (\d+)\b(?! of a text)")
_QUOTED = re.compile(r'"…?((?:[^"\\]|\\.){6,}?)…?"')
_KEY = re.compile(r"`(\w+)`|the key '(\w+)'")

Marks = Sequence[tuple[int, int]]


def excerpts_of(code: str, pairs: Sequence[Mapping[str, Any]], reading: Reading) -> list[Excerpt]:
    """Return excerpts of the first pair of a row that shows what a code is about, or of the first.

    Each of `pairs` has prompt, chosen and rejected as lists of turns.
    """
    found = [list(_of_pair(code, pair, reading)) for pair in pairs]
    return next((some for some in found if any(one.marks for one in some)), next(iter(found), []))


def refused_excerpts(row: Mapping[str, Any], reading: Reading) -> list[Excerpt]:
    """Return excerpts of a row of REJECTED: of its pair, or of its bytes if it gave none."""
    if row["pair"] is None:
        return raw_excerpts(row["raw"] or b"", row["message"])
    return excerpts_of(row["code"], [orjson.loads(row["pair"])], reading)


def _of_pair(code: str, pair: Mapping[str, Any], reading: Reading) -> Iterator[Excerpt]:
    is_known = code in rules_of(reading.limits)
    spans = evidence_of(code, pair, reading).spans if is_known else ()
    for part in PARTS:
        turns = pair[part] or ()
        marked = sorted({span.turn for span in spans if span.part == part})
        for at in marked[:_MOST_TURNS] or range(len(turns))[-1:]:
            text = turns[at]["content"] or f"{turns[at].get('tool_calls') or ''}"
            marks = [(s.start, s.end) for s in spans if (s.part, s.turn) == (part, at)]
            role = turns[at]["role"] if len(turns) > 1 else None
            yield cut_excerpt(text, marks, part=part, role=role)


def raw_excerpts(raw: bytes, message: str) -> list[Excerpt]:
    """Return excerpts of a row that was not read as a pair, around what the message names.

    >>> raw_excerpts(b'{"chosen": 6}', "`chosen` is a number")[0].marks
    [(1, 9)]
    """
    at = min(next((int(found[1]) for found in _BYTE.finditer(message)), 0), max(len(raw) - 1, 0))
    start = max(at - _MOST_RAW // 2, 0)
    before = raw[start:at].decode("utf-8", "backslashreplace")
    text = before + raw[at : at + _MOST_RAW // 2].decode("utf-8", "backslashreplace")
    if _BYTE.search(message):
        marks = [(len(before), len(before) + _width(raw[at:]))]
    else:
        marks = list(_named_in(text, message))
    near = [mark for mark in marks if mark[0] - marks[0][0] < _MOST_CHARACTERS // 2]
    far = marks[len(near) :]
    return [cut_excerpt(text, some, part="row") for some in ([near, far] if far else [near])]


def _named_in(text: str, message: str) -> Iterator[tuple[int, int]]:
    """Yield where keys and passages that a message quotes are in a row's text."""
    keys = [f'"{found[1] or found[2]}"' for found in _KEY.finditer(message)]
    quoted = [found[1] for found in _QUOTED.finditer(message)]
    at = 0
    for passage in [*keys, *quoted]:
        place = text.find(passage, at)
        if place >= 0:
            yield place, place + len(passage)
            at = place + len(passage)


def _width(raw: bytes) -> int:
    r"""Return the number of characters that show the first byte: `\xff` if it is not UTF-8."""
    return len(raw[:1].decode("utf-8", "backslashreplace")) if raw[:1] >= b"\x80" else 1


def cut_excerpt(text: str, marks: Marks, *, part: str, role: str | None = None) -> Excerpt:
    """Return at most 240 characters of a text, around its first mark, without what looks private.

    >>> cut_excerpt("Mail jane.doe@corp.org now", [(5, 22)], part="chosen").text
    'Mail ….org now'
    """
    first = min((start for start, _ in marks), default=0)
    begin = max(first - _MOST_CHARACTERS // 3, 0) if first >= _MOST_CHARACTERS // 2 else 0
    end = min(begin + _MOST_CHARACTERS, len(text))
    shown, found = "…" if begin else "", list[tuple[int, int]]()
    for piece, is_marked in _pieces(text, begin, end, marks):
        if is_marked:
            found.append((len(shown), len(shown) + len(piece)))
        shown += piece
    if marks and not text:
        found.append((0, 0))
    shown += "…" if end < len(text) else ""
    return Excerpt.model_validate({"part": part, "role": role, "text": shown, "marks": found})


def _pieces(text: str, begin: int, end: int, marks: Marks) -> Iterator[tuple[str, bool]]:
    """Yield the text from `begin` to `end` in pieces, and whether each is marked."""
    origin = max(begin - _SEARCHED, 0)
    found = private_spans(text[origin : end + _SEARCHED])
    private = [(start + origin, stop + origin) for start, stop in found]
    hidden = {at: span for span in private for at in _within(span, begin, end)}
    marked = {at for span in marks for at in _within(span, begin, end)}
    touched = {span for at, span in hidden.items() if at in marked}
    for (span, is_marked), run in groupby(
        range(begin, end),
        key=lambda at: (hidden.get(at), hidden[at] in touched if at in hidden else at in marked),
    ):
        places = list(run)
        yield _ending(text, span) if span else text[places[0] : places[-1] + 1], is_marked


def _within(span: tuple[int, int], begin: int, end: int) -> Iterable[int]:
    return range(max(span[0], begin), min(span[1], end))


def _ending(text: str, span: tuple[int, int]) -> str:
    """Return what is shown of something private: its end, if that reveals nothing."""
    start, stop = span
    return f"…{text[stop - SHOWN : stop]}" if stop - start >= 3 * SHOWN else "…"
