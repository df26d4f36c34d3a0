"""Pages of a build's rows by reason: refused, copies, near-duplicates next to what is kept.

Also pages of all refused rows, whatever their reason, in the order of the inputs.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from prefdata.report.diff import compare
from prefdata.report.excerpts import raw_excerpts
from prefdata.report.form import report_of
from prefdata.report.html.page import render
from prefdata.report.lengths import PARTS
from prefdata.report.listing import (
    Listed,
    Listing,
    list_finding,
    list_rejected,
    passages_of,
)
from prefdata.report.model import Excerpt, Finding
from prefdata.store.commit import write_bytes
from prefdata.store.ownership import is_page_of, require_new_or, require_unsealed
from prefdata.store.reader import Build

MOST_ROWS = 50
"""Rows of a page; the others are counted."""
MOST_CHARACTERS = 1_200  # of a turn of a near-duplicate


class Turn(NamedTuple):
    """Turn of a row: its text in pieces, and whether each is a passage that the code is about."""

    role: str
    pieces: Sequence[tuple[str, bool]]


class Row(NamedTuple):
    """Row with a code, prepared for the template."""

    place: str
    code: str
    said: str
    parts: Sequence[tuple[str, Sequence[Turn]]]
    raw: Sequence[Excerpt]
    """Its own text, if it was not read as a pair."""
    others: Sequence["Row"] = ()
    """Its near-duplicates."""


class Link(NamedTuple):
    """Page of a code, or of all refused rows: its code is empty."""

    name: str
    code: str
    label: str
    total: int


def write_findings(build: Build, folder: Path, most: int) -> list[Link]:
    """Write a page for each finding that has rows, `code-PD304.html`; return their links.

    Also write pages of at most `most` refused rows of all codes, `refused.html`.
    """
    findings = {one.code: one for one in reversed(report_of(build).findings)}  # errors win
    found = [(one, list_finding(build, one)) for one in reversed(findings.values())]
    pages = [(one, listing) for one, listing in found if listing.total]
    links = [
        Link(f"code-{one.code}.html", one.code, one.name.replace("_", " "), listing.total)
        for one, listing in pages
    ]
    refused = list_rejected(build) if build.has_rejected else Listing("refused row", 0, iter(()))
    links += [Link("refused.html", "", "all refused", refused.total)] if refused.total else []
    for (finding, listing), link in zip(pages, links, strict=False):
        _write(folder / link.name, _page(build, finding, listing, links))
    for name, page in _refused_pages(build, refused, links, most) if refused.total else ():
        _write(folder / name, page)
    return links


def _write(path: Path, page: str) -> None:
    require_new_or(path, is_page_of("prefdata show"), "a page that prefdata show wrote")
    require_unsealed(path)
    write_bytes(path, page.encode())


def _refused_pages(
    build: Build, refused: Listing, links: Sequence[Link], most: int
) -> Iterator[tuple[str, str]]:
    """Yield name and text of each page of refused rows."""
    shown = min(refused.total, most)
    rest = range(2, -(-shown // MOST_ROWS) + 1)
    pages = ["refused.html", *(f"refused-{number:04d}.html" for number in rest)]
    rows = islice(refused.rows, shown)
    for number, name in enumerate(pages):
        values = {
            "build": build.path.resolve().name,
            "rows": [_row(one) for one in islice(rows, MOST_ROWS)],
            "total": refused.total,
            "shown": shown,
            "links": links,
            "coded": {link.code for link in links},
            "pages": pages,
            "page": number,
        }
        yield name, render("refused.html.jinja", values, tool_version=build.manifest.tool_version)


def _page(build: Build, finding: Finding, listing: Listing, links: Sequence[Link]) -> str:
    rows = list(_clusters(islice(listing.rows, MOST_ROWS)))
    values = {
        "build": build.path.resolve().name,
        "finding": finding,
        "listing": listing,
        "rows": rows,
        "clustered": any(row.others for row in rows),
        "shown": sum(max(len(row.others), 1) for row in rows),
        "links": links,
    }
    return render("findings.html.jinja", values, tool_version=build.manifest.tool_version)


def _clusters(rows: Iterator[Listed]) -> Iterator[Row]:
    """Yield rows; near-duplicates of one kept pair are one row, in the order of the first."""
    clusters: dict[str, tuple[Listed, list[Row]]] = {}
    plain = list[Row]()
    for one in rows:
        if one.kept is None:
            plain.append(_row(one))
        else:
            clusters.setdefault(one.kept.place, (one.kept, []))[1].append(_next_to(one, one.kept))
    yield from plain
    for kept, others in clusters.values():
        yield _row(kept)._replace(others=others)


def _next_to(one: Listed, kept: Listed) -> Row:
    """Return a near-duplicate with the words marked that the kept row lacks."""
    row = _row(one)
    if one.pair is None or kept.pair is None:
        return row
    parts = []
    for part, turns in row.parts:
        own, others = (pair[part] or () for pair in (one.pair, kept.pair))
        new = [
            turn._replace(pieces=_new_words(others[at]["content"], own[at]["content"]))
            if at < len(others)
            else turn
            for at, turn in enumerate(turns)
        ]
        parts.append((part, new))
    return row._replace(parts=parts)


def _new_words(kept: str, own: str) -> list[tuple[str, bool]]:
    """Return the beginning of a text in pieces, and whether each is not in the kept text."""
    found = compare(kept[:MOST_CHARACTERS], own[:MOST_CHARACTERS]).right
    rest = [("…", False)] if len(own) > MOST_CHARACTERS else []
    return [(span.text, span.differs) for span in found] + rest


def _row(one: Listed) -> Row:
    is_private = one.code == "PD607"
    parts = []
    for part in PARTS if one.pair is not None else ():
        assert one.pair is not None
        turns = []
        for at, turn in enumerate(one.pair[part] or ()):
            spans = [(s.start, s.end) for s in one.spans if (s.part, s.turn) == (part, at)]
            pieces = list(passages_of(turn["content"], spans, private=is_private))
            turns.append(Turn(turn["role"], pieces))
        parts.append((part, turns))
    raw = [] if one.pair is not None else raw_excerpts(one.raw, one.said)
    return Row(one.place, one.code, one.said, parts, raw)
