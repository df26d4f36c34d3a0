"""The pairs of a build as pages to leaf through: both sides, what differs, every token.

A page ends at PAGE_PAIRS pairs, and each text at MOST_CHARACTERS, so its size is bounded.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from prefdata.errors import UsageError
from prefdata.report.diff import Span, compare
from prefdata.report.html.page import render
from prefdata.report.lengths import PARTS
from prefdata.report.model import Report
from prefdata.report.pieces import Decode, Piece, decoder_of, pieces_of
from prefdata.report.rows import ShownPair, num_rows, read_pairs, spread_rows
from prefdata.store.commit import make_folder, write_bytes
from prefdata.store.ownership import (
    identity,
    is_page_of,
    require_new_or,
    require_unsealed,
    require_writable_name,
)
from prefdata.store.reader import Build
from prefdata.store.staging import FOLDERS
from prefdata.tokens.sealed import load_sealed

PAGE_PAIRS = 20
MOST_CHARACTERS = 12_000  # of one part of a pair; the rest is counted
MOST_TOKENS = 1_500  # of one part
_OPEN_CHARACTERS = 1_400  # of a text that stand open; the rest unfolds
_LEAST_SHARED = 0.1  # of the words; sides that share fewer are not marked

Codes = Mapping[tuple[str, int], Sequence[str]]


class Text(NamedTuple):
    """A part of a pair, ready to be shown."""

    name: str
    open: Sequence[Span]
    folded: Sequence[Span]
    num_folded: int
    """Characters in `folded`."""
    num_cut: int
    """Characters that are not shown at all."""


class Tokens(NamedTuple):
    """The ids of a part as pieces."""

    name: str
    pieces: Sequence[Piece]
    total: int
    num_cut: int


class Leaf(NamedTuple):
    """One pair, ready to be shown."""

    pair: ShownPair
    pair_id: str
    prompt: Text
    sides: Sequence[Text]
    shared: float
    marked: bool
    tokens: Sequence[Tokens]
    facts: Sequence[tuple[str, str]]
    codes: Sequence[str]


def write_browser(
    build: Build, out: Path, *, most: int, tokenizer: str | None = None
) -> list[Path]:
    """Pages over at most so many pairs, evenly spread over the build.

    One page where `out` ends in .html; else a folder with `index.html` and the pages after it.
    """
    total = num_rows(build)
    rows = spread_rows(total, most)
    is_file = out.suffix == ".html" and not out.is_dir()
    _check_folder(build, out.parent if is_file else out)
    make_folder(out.parent if is_file else out)
    sizes = len(rows) if is_file else PAGE_PAIRS
    names = [out] if is_file else [out / name for name in _names(-(-len(rows) // sizes))]
    for path in names:
        require_new_or(path, is_page_of("prefdata show"), "a page that prefdata show wrote")
        require_unsealed(path)
    leaves = _leaves(build, rows, tokenizer)
    for number, path in enumerate(names):
        values = {
            "build": build.path.resolve().name,
            "leaves": list(islice(leaves, sizes)),
            "total": total,
            "shown": len(rows),
            "pages": [page.name for page in names],
            "page": number,
        }
        page = render("pairs.html.jinja", values, tool_version=build.manifest.tool_version)
        write_bytes(path, page.encode())
    return names


def _check_folder(build: Build, folder: Path) -> None:
    """Raise E173 where pages would lie among the files of the build that they show."""
    require_writable_name(folder)
    own = {identity(build.path / name): name for name in FOLDERS}
    if identity(folder) in own:
        problem = f"is where the build has its {own[identity(folder)]}"
        raise UsageError("E173", str(folder), problem, "name another output")


def _names(number: int) -> list[str]:
    """Names of pages that sort as they are read."""
    return ["index.html", *(f"page-{page:04d}.html" for page in range(2, number + 1))]


def _leaves(build: Build, rows: Sequence[int], tokenizer: str | None) -> Iterator[Leaf]:
    decode = decoder_of(load_sealed(build.manifest.tokenizer, tokenizer))
    report = Report.model_validate_json(build.file("report.json").read_bytes())
    codes = codes_by_place(report)
    return (leaf_of(pair, decode, codes) for pair in read_pairs(build, rows))


def codes_by_place(report: Report) -> dict[tuple[str, int], list[str]]:
    """What the report names places for, by source and line."""
    found: dict[tuple[str, int], list[str]] = {}
    for finding in report.findings:
        for example in finding.examples:
            found.setdefault((example.source, example.line), []).append(finding.code)
    return found


def leaf_of(pair: ShownPair, decode: Decode, codes: Codes) -> Leaf:
    """What a page shows of a pair."""
    words = {part: pair.words(part) for part in PARTS}
    cut = {part: text[:MOST_CHARACTERS] for part, text in words.items()}
    found = compare(cut["chosen"], cut["rejected"])
    marked = found.shared >= _LEAST_SHARED
    spans = {"chosen": found.left, "rejected": found.right}
    if not marked:
        spans = {side: [Span(cut[side], differs=False)] for side in spans}
    return Leaf(
        pair,
        pair.tokens["pair_id"].hex(),
        _text("prompt", [Span(cut["prompt"], differs=False)], words["prompt"]),
        [_text(side, spans[side], words[side]) for side in spans],
        found.shared,
        marked,
        [_tokens(part, pair.tokens, decode) for part in PARTS],
        list(_facts(pair.text)),
        codes.get((pair.text["source"], pair.text["line"]), ()),
    )


def _text(name: str, spans: Sequence[Span], whole: str) -> Text:
    """A text's beginning, and what unfolds after it where it is long."""
    shown = sum(len(span.text) for span in spans)
    if shown <= _OPEN_CHARACTERS * 5 // 4:
        return Text(name, spans, [], 0, len(whole) - shown)
    first, rest = _part(spans, _OPEN_CHARACTERS)
    return Text(name, first, rest, shown - _OPEN_CHARACTERS, len(whole) - shown)


def _part(spans: Sequence[Span], at: int) -> tuple[list[Span], list[Span]]:
    """The spans before and after a character."""
    first, rest = [], []
    for span in spans:
        before, after = span.text[: max(at, 0)], span.text[max(at, 0) :]
        first += [span._replace(text=before)] if before else []
        rest += [span._replace(text=after)] if after else []
        at -= len(span.text)
    return first, rest


def _tokens(part: str, tokens: Mapping[str, Any], decode: Decode) -> Tokens:
    ids, mask = tokens[f"{part}_ids"], tokens.get(f"{part}_mask")
    flags = [False] * len(ids) if part == "prompt" else mask
    shown = ids[:MOST_TOKENS]
    pieces = pieces_of(shown, flags and flags[:MOST_TOKENS], decode)
    return Tokens(part, list(pieces), len(ids), len(ids) - len(shown))


def _facts(text: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of a pair besides its texts, where it is known."""
    for name in ("score", "model"):
        sides = [text.get(f"{name}_{side}") for side in ("chosen", "rejected")]
        if sides != [None, None]:
            yield name, " over ".join("?" if side is None else f"{side}" for side in sides)
    ranks = [text.get(f"{side}_rank") for side in ("chosen", "rejected")]
    if ranks != [None, None]:
        yield "rank", " over ".join("?" if rank is None else f"{rank}" for rank in ranks)
    if text.get("margin") is not None:
        yield "margin", f"{text['margin']:g}"
    if text.get("weight", 1.0) != 1.0:
        yield "weight", f"{text['weight']:g}"
