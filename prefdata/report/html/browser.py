"""HTML pages of a build's pairs: both sides, the difference, every token.

A page has at most PAGE_PAIRS pairs, and each text at most MOST_CHARACTERS, so its size is bounded.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from prefdata.errors import UsageError
from prefdata.report.diff import Span, compare
from prefdata.report.form import report_of
from prefdata.report.html.page import render
from prefdata.report.lengths import PARTS
from prefdata.report.model import Report
from prefdata.report.rows import (
    Decode,
    Piece,
    ShownPair,
    decoder_of,
    num_rows,
    pieces_of,
    read_pairs,
    spread_rows,
)
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
from prefdata.tokens.tokenizer import load_sealed

PAGE_PAIRS = 20
MOST_CHARACTERS = 12_000  # shown of one field of a pair; the rest is counted
MOST_TOKENS = 1_500  # shown of one field
_OPEN_CHARACTERS = 1_400  # of a text that are visible at first; the rest unfolds
_LEAST_SHARED = 0.1  # of the words; if sides share fewer, differences are not marked

Codes = Mapping[tuple[str, int], Sequence[str]]


class Text(NamedTuple):
    """Text of one field of a pair, prepared for the template."""

    name: str
    open: Sequence[Span]
    folded: Sequence[Span]
    num_folded: int
    """Number of characters in `folded`."""
    num_cut: int
    """Number of characters that are not shown at all."""


class Tokens(NamedTuple):
    """Tokens of one field as pieces."""

    name: str
    pieces: Sequence[Piece]
    total: int
    num_cut: int


class Texts(NamedTuple):
    """Texts of a pair; those of the sides have what is in only one of them marked."""

    prompt: Text
    sides: Sequence[Text]
    shared: float
    marked: bool


class Leaf(NamedTuple):
    """Pair, prepared for the template."""

    pair: ShownPair
    pair_id: str
    texts: Texts
    tokens: Sequence[Tokens]
    facts: Sequence[tuple[str, str]]
    codes: Sequence[str]


def write_browser(
    build: Build, out: Path, *, most: int, tokenizer: str | None = None
) -> list[Path]:
    """Write pages with at most `most` pairs, evenly spaced over the build; return their paths.

    If `out` ends in .html, write one page; otherwise a directory with `index.html` and more pages.
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
    """Raise E173 if pages would be among the files of the build that they show."""
    require_writable_name(folder)
    own = {identity(build.path / name): name for name in FOLDERS}
    if identity(folder) in own:
        problem = f"is where the build has its {own[identity(folder)]}"
        raise UsageError("E173", str(folder), problem, "name another output")


def _names(number: int) -> list[str]:
    """Return the names of pages; they sort in reading order."""
    return ["index.html", *(f"page-{page:04d}.html" for page in range(2, number + 1))]


def _leaves(build: Build, rows: Sequence[int], tokenizer: str | None) -> Iterator[Leaf]:
    decode = decoder_of(load_sealed(build.manifest.tokenizer, tokenizer))
    report = report_of(build)
    codes = codes_by_place(report)
    return (leaf_of(pair, decode, codes) for pair in read_pairs(build, rows))


def codes_by_place(report: Report) -> dict[tuple[str, int], list[str]]:
    """Return the codes whose locations the report names, by source and line."""
    found: dict[tuple[str, int], list[str]] = {}
    for finding in report.findings:
        for example in finding.examples:
            row = example.line if example.element is None else example.element
            found.setdefault((example.source, row), []).append(finding.code)
    return found


def leaf_of(pair: ShownPair, decode: Decode, codes: Codes) -> Leaf:
    """Return a pair, prepared for the template."""
    return Leaf(
        pair,
        pair.tokens["pair_id"].hex(),
        texts_of(pair),
        [_tokens(part, pair.tokens, decode) for part in PARTS],
        list(_facts(pair.text)),
        codes.get((pair.text["source"], pair.text["line"]), ()),
    )


def texts_of(pair: ShownPair, *, most: int = MOST_CHARACTERS) -> Texts:
    """Return the texts of a pair, at most `most` characters of each, with differences marked."""
    words = {part: pair.words(part) for part in PARTS}
    cut = {part: text[:most] for part, text in words.items()}
    found = compare(cut["chosen"], cut["rejected"])
    marked = found.shared >= _LEAST_SHARED
    spans = {"chosen": found.left, "rejected": found.right}
    if not marked:
        spans = {side: [Span(cut[side], differs=False)] for side in spans}
    return Texts(
        _text("prompt", [Span(cut["prompt"], differs=False)], words["prompt"]),
        [_text(side, spans[side], words[side]) for side in spans],
        found.shared,
        marked,
    )


def _text(name: str, spans: Sequence[Span], whole: str) -> Text:
    """Return a text's beginning, and the rest that unfolds if it is long."""
    shown = sum(len(span.text) for span in spans)
    if shown <= _OPEN_CHARACTERS * 5 // 4:
        return Text(name, spans, [], 0, len(whole) - shown)
    first, rest = _part(spans, _OPEN_CHARACTERS)
    return Text(name, first, rest, shown - _OPEN_CHARACTERS, len(whole) - shown)


def _part(spans: Sequence[Span], at: int) -> tuple[list[Span], list[Span]]:
    """Split the spans at a character."""
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
    """Yield name and value of a pair's known scores, models, ranks, margin and weight."""
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
