"""Comparison of two builds as lines for a terminal and as an HTML page."""

from collections.abc import Iterator
from pathlib import Path

from prefdata.comparison.compare import Change, Comparison
from prefdata.errors import UsageError
from prefdata.report.figures import count
from prefdata.report.html.page import render
from prefdata.store.canonical import to_json
from prefdata.store.commit import make_folder, write_bytes
from prefdata.store.ownership import is_json_of, is_page_of, require_new_or, require_unsealed

KINDS = {
    "added": "added",
    "gone": "gone",
    "flipped": "label flipped",
    "moved": "moved to another split",
    "tokens": "other tokens",
    "numbers": "other weight, margin or rank",
}
_IS_OURS = {".json": is_json_of("prefdata-comparison"), ".html": is_page_of("prefdata")}
_MOST_NAMED = 5
_MOST_ROWS = 1_000


def say_comparison(found: Comparison) -> Iterator[str]:
    """Yield what differs in lines: counts, the first pairs of each kind, codes and settings."""
    yield f"{found.first} → {found.second}"
    is_same = found.content_hashes[0] == found.content_hashes[1]
    hashes = " → ".join(one[:16] for one in found.content_hashes)
    yield f"content hash: {'the same' if is_same else hashes}"
    yield f"{found.same:>10,}  pairs are the same"
    for kind, title in KINDS.items():
        changes: list[Change] = getattr(found, kind)
        yield f"{len(changes):>10,}  {title}"
        for change in changes[:_MOST_NAMED]:
            yield f"{'':>12}{place_of(change)}"
        if len(changes) > _MOST_NAMED:
            yield f"{'':>12}and {len(changes) - _MOST_NAMED:,} more (--report FILE.json lists all)"
    for split, (before, after) in found.splits.items():
        yield f"{split}: {before:,} → {count(after, 'pair')}"
    for code in found.codes:
        yield f"{code.code} {code.name}: {code.before:,} → {code.after:,}"
    for setting in found.settings:
        yield f"{setting.name}: {setting.before} → {setting.after}"


def place_of(change: Change) -> str:
    """Return the text that identifies a pair in a line."""
    moved = f"{change.before} → {change.split}" if change.before else change.split
    return f"{moved}  {change.source}:{change.line}  {change.pair_id[:12]}"


def render_comparison(found: Comparison, *, tool_version: str) -> str:
    """Return the HTML page; it is byte-identical for equal comparisons."""
    values = {
        "found": found,
        "kinds": [(title, getattr(found, kind)) for kind, title in KINDS.items()],
        "most": _MOST_ROWS,
    }
    return render(
        "comparison.html.jinja", values, tool_version=tool_version, folder=Path(__file__).parent
    )


def check_target(path: Path) -> None:
    """Raise a coded error for an ending that is unknown, or a file that is not a comparison."""
    if path.suffix not in _IS_OURS:
        remedy = f"end its name in {' or '.join(_IS_OURS)}"
        raise UsageError("E160", str(path), "is not a format of a comparison", remedy)
    require_new_or(path, _IS_OURS[path.suffix], "a comparison of prefdata")
    require_unsealed(path)


def write_comparison(found: Comparison, path: Path, *, tool_version: str) -> None:
    """Write a comparison as JSON or HTML, by the ending of the name."""
    make_folder(path.parent)
    if path.suffix == ".json":
        write_bytes(path, to_json(found))
    else:
        write_bytes(path, render_comparison(found, tool_version=tool_version).encode())
