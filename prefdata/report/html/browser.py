"""HTML pages of a build's pairs: both sides, the difference, every token.

A page has at most PAGE_PAIRS pairs, and each text at most MOST_CHARACTERS, so its size is bounded.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from prefdata.errors import UsageError
from prefdata.report.diff import Span, compare
from prefdata.report.figures import count
from prefdata.report.form import report_of
from prefdata.report.html.findings import write_findings
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
    place_of,
    read_pairs,
    spread_rows,
    text_path,
)
from prefdata.report.views import ShowOptions, Sort
from prefdata.store.commit import make_folder, write_bytes
from prefdata.store.ownership import (
    identity,
    is_page_of,
    require_new_or,
    require_unsealed,
    require_writable_name,
)
from prefdata.store.reader import Build, Shard
from prefdata.store.staging import FOLDERS
from prefdata.tokens.tokenizer import load_sealed

PAGE_PAIRS = 20
MOST_PAIRS = 200  # if no number is given
MOST_CHARACTERS = 12_000  # shown of one field of a pair; the rest is counted
MOST_TOKENS = 1_500  # shown of one field
_OPEN_CHARACTERS = 1_400  # of a text that are visible at first; the rest unfolds
_LEAST_SHARED = 0.1  # of the words; if sides share fewer, differences are not marked

Codes = Mapping[tuple[str, int], Sequence[str]]


_FENCE = re.compile(r"^[^\S\n]*```.*?(?:^[^\S\n]*```[^\S\n]*$|\Z)", re.MULTILINE | re.DOTALL)


class Passage(NamedTuple):
    """A run of a text: in only one side, or in a fenced block of code."""

    text: str
    differs: bool
    code: bool = False


class Pages(NamedTuple):
    """Paths of the pages of pairs, and the number of pairs on them."""

    paths: list[Path]
    shown: int


class Text(NamedTuple):
    """Text of one field of a pair, prepared for the template."""

    name: str
    open: Sequence[Passage]
    folded: Sequence[Passage]
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
    place: str
    pair_id: str
    texts: Texts
    tokens: Sequence[Tokens]
    facts: Sequence[tuple[str, str]]
    codes: Sequence[str]


def write_browser(
    build: Build,
    out: Path,
    *,
    most: int,
    tokenizer: str | None = None,
    sort: Sort = "spread",
    suspects: Path | None = None,
) -> Pages:
    """Write pages with at most `most` pairs; with `suspects`, those of that file in its order.

    If `out` ends in .html, write one page; otherwise a directory with `index.html` and more pages,
    one for each finding with its rows, `code-PD304.html`, and `refused.html` with all refused ones.
    """
    total = num_rows(build)
    rows = rows_by(build, sort, most) if suspects is None else find_suspects(build, suspects, most)
    is_file = out.suffix == ".html" and not out.is_dir()
    _check_folder(build, out.parent if is_file else out)
    make_folder(out.parent if is_file else out)
    sizes = len(rows) if is_file else PAGE_PAIRS
    names = [out] if is_file else [out / name for name in _names(-(-len(rows) // sizes))]
    for path in names:
        require_new_or(path, is_page_of("prefdata show"), "a page that prefdata show wrote")
        require_unsealed(path)
    leaves_of = _reader(build, tokenizer)
    links = [] if is_file else write_findings(build, out, most)
    jumps = sorted((row, names[at // sizes].name) for at, row in enumerate(rows))
    for number, path in enumerate(names):
        values = {
            "build": build.path.resolve().name,
            "leaves": leaves_of(rows[number * sizes : (number + 1) * sizes]),
            "total": total,
            "shown": len(rows),
            "pages": [page.name for page in names],
            "page": number,
            "sort": sort if suspects is None else "suspects",
            "links": links,
            "jumps": [] if number or is_file else jumps,
        }
        page = render("pairs.html.jinja", values, tool_version=build.manifest.tool_version)
        write_bytes(path, page.encode())
    return Pages(names, len(rows))


def show_pages(build: Build, out: Path, how: ShowOptions) -> str:
    """Write the pages that `prefdata show --html` names; return a line about them."""
    most, sort = how.rows or MOST_PAIRS, how.sort or "spread"
    paths, shown = write_browser(
        build, out, most=most, tokenizer=how.tokenizer, sort=sort, suspects=how.suspects
    )
    return f"{paths[0]} shows {shown:,} of {count(num_rows(build), 'pair')}"


def find_suspects(build: Build, file: Path, most: int) -> list[int]:
    """Return the rows of the pairs in `suspects.jsonl` of `dpo-score`, in its order.

    Raises E144 if it is not such a file, or none of its pairs is in the build.
    """
    try:
        # a pipe or a device may have no end
        lines = file.read_bytes().splitlines() if file.is_file() else [b""]
        wanted = [bytes.fromhex(orjson.loads(line)["pair_id"]) for line in lines]
    except (OSError, ValueError, TypeError, LookupError) as error:
        remedy = "name suspects.jsonl of dpo-score"
        raise UsageError("E144", str(file), "is not a list of suspects", remedy) from error
    rows, start = dict[bytes, int](), 0
    for split in build.splits:
        for shard in build.shards(split):
            ids = shard.read()["pair_id"]
            places = np.flatnonzero(np.array(pc.is_in(ids, pa.array(wanted, ids.type))))
            for at in places.tolist():
                rows.setdefault(ids[at].as_py(), start + at)
            start += shard.rows
    found = [rows[one] for one in dict.fromkeys(wanted) if one in rows][:most]
    if not found:
        remedy = "name the build whose pairs dpo-score scored"
        raise UsageError("E144", str(build.path), f"has no pair of {file}", remedy)
    return found


def rows_by(build: Build, sort: Sort, most: int) -> list[int]:
    """Return at most `most` rows of a build in the order of a sort; equal ones in theirs.

    Raises E144 if it sorts by margins and no pair has one.
    """
    if sort == "spread":
        return spread_rows(num_rows(build), most)
    shards = [shard for split in build.splits for shard in build.shards(split)]
    keys = [_margins(build, one) if sort == "margin" else _length_gaps(one) for one in shards]
    values = np.concatenate(keys) if keys else np.zeros(0)
    if len(values) and np.isnan(values).all():
        remedy = "its inputs have no scores or margins; sort by length-gap"
        raise UsageError("E144", str(build.path), "has no pair with a margin", remedy)
    order = np.argsort(values, kind="stable")[:most]  # NaN is last
    return [int(row) for row in order if not np.isnan(values[row])]


def _margins(build: Build, shard: Shard) -> NDArray[np.float64]:
    """Return each pair's margin, or the difference of its scores, (rows,); NaN without them."""
    names = ["margin", "score_chosen", "score_rejected"]
    with parquet.ParquetFile(build.file(text_path(shard.name)).absolute()) as file:
        table = file.read(columns=names)
    margin, chosen, rejected = (
        np.array(pc.fill_null(pc.cast(table[name], pa.float64()), np.nan)) for name in names
    )
    found: NDArray[np.float64] = np.where(np.isnan(margin), chosen - rejected, margin)
    return found


def _length_gaps(shard: Shard) -> NDArray[np.float64]:
    """Return minus the difference in tokens of each pair's sides, (rows,)."""
    table = shard.read()
    chosen, rejected = (
        np.array(pc.list_value_length(table[f"{side}_ids"]), np.float64)
        for side in ("chosen", "rejected")
    )
    gaps: NDArray[np.float64] = -np.abs(chosen - rejected)
    return gaps


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


def _reader(build: Build, tokenizer: str | None) -> Callable[[Sequence[int]], list[Leaf]]:
    """Return a function from rows, in any order, to their leaves."""
    decode = decoder_of(load_sealed(build.manifest.tokenizer, tokenizer))
    codes = codes_by_place(report_of(build))

    def read(rows: Sequence[int]) -> list[Leaf]:
        found = {pair.row: pair for pair in read_pairs(build, sorted(rows))}
        return [leaf_of(found[row], decode, codes) for row in rows]

    return read


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
        place_of(pair.text),
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
    passages = fenced(spans)
    if shown <= _OPEN_CHARACTERS * 5 // 4:
        return Text(name, passages, [], 0, len(whole) - shown)
    first, rest = _part(passages, _OPEN_CHARACTERS)
    return Text(name, first, rest, shown - _OPEN_CHARACTERS, len(whole) - shown)


def fenced(spans: Sequence[Span]) -> list[Passage]:
    r"""Return the spans, split where fenced blocks of code begin and end.

    >>> found = fenced([Span("So\n```\nx = 1\n```\nnow", differs=False)])
    >>> [one.text for one in found if one.code]
    ['```\nx = 1\n```']
    """
    text = "".join(span.text for span in spans)
    rest, found, at = [Passage(*span) for span in spans], list[Passage](), 0
    for match in _FENCE.finditer(text):
        before, rest = _part(rest, match.start() - at)
        code, rest = _part(rest, match.end() - match.start())
        found += [*before, *(passage._replace(code=True) for passage in code)]
        at = match.end()
    return found + rest


def _part(spans: Sequence[Passage], at: int) -> tuple[list[Passage], list[Passage]]:
    """Split the passages at a character."""
    first, rest = list[Passage](), list[Passage]()
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
