"""Which layout a file has, told by its columns; never a guess between two."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prefdata.errors import UsageError
from prefdata.read.fields import MISSING, getter
from prefdata.read.layout import Kind, Layout, shipped_layouts

SAMPLE = 64  # rows looked at
# How much a kind says: an HH transcript is text too, so seeing one is the closer fit.
WEIGHT: dict[Kind, int] = {"any": 1, "text": 2, "list": 2, "hh": 3, "dialogue": 2}
PLAIN_WEIGHT = 3
MARKERS = ("\n\nHuman:", "\n\nAssistant:")


class Fit(NamedTuple):
    """How well a layout describes the sample."""

    layout: Layout
    confidence: float  # share of the rows that have the layout's columns
    weight: int


def detect_layout(first_rows: Sequence[Mapping[str, Any]], place: str = "input") -> Layout:
    """The one layout that fits best; PD102 with the candidates where none or several do."""
    rows = first_rows[:SAMPLE]
    fits = [_fit(layout, rows) for layout in shipped_layouts().values() if layout.detect]
    likely = sorted((f for f in fits if f.confidence >= 0.5), key=lambda f: -f.weight)
    if likely and (len(likely) == 1 or likely[0].weight > likely[1].weight):
        return likely[0].layout
    columns = ", ".join(sorted({str(name) for row in rows for name in row}))
    if likely:
        tied = [fit for fit in likely if fit.weight == likely[0].weight]
        names = " or ".join(fit.layout.name for fit in tied)
        problem = f"the columns {columns} may be {names}"
    else:
        problem = f"no layout has the columns {columns}{_nearest(fits)}"
    remedy = "force one with --layout NAME, or write a YAML file of your own (docs/layouts.md)"
    raise UsageError("PD102", place, problem, remedy)


def _fit(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> Fit:
    paths = [(getter(path), kind) for path, kind in layout.columns.items()]
    matched = sum(
        all(_is_kind(get(row), kind) for get, kind in paths)
        and not any(row.get(name) is not None for name in layout.absent)
        for row in rows
    )
    weight = sum(WEIGHT.get(kind, PLAIN_WEIGHT) for kind in layout.columns.values())
    return Fit(layout, matched / len(rows) if rows else 0.0, weight)


def _is_kind(value: Any, kind: Kind) -> bool:
    return TESTS[kind](value)


def _is_hh(value: Any) -> bool:
    return type(value) is str and value.startswith(MARKERS)


def _all_have(value: Any, key: str) -> bool:
    return type(value) is list and bool(value) and all(_has(item, key) for item in value)


def _has(item: Any, key: str) -> bool:
    return type(item) is dict and type(item.get(key)) is str


TESTS: dict[Kind, Callable[[Any], bool]] = {
    "any": lambda value: value is not MISSING,
    "text": lambda value: type(value) is str,
    "hh": _is_hh,
    "messages": lambda value: _all_have(value, "role"),
    "turns": lambda value: _all_have(value, "from"),
    "turn": lambda value: _has(value, "from") or _has(value, "role"),
    "dialogue": lambda value: type(value) is str or _all_have(value, "role"),
    "list": lambda value: type(value) is list,
    "number": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
}


def _nearest(fits: Sequence[Fit]) -> str:
    """Layouts that some rows fit, for the error message."""
    some = [
        f"{fit.layout.name} ({fit.confidence:.0%} of the rows)" for fit in fits if fit.confidence
    ]
    return f"; nearest: {', '.join(some)}" if some else ""
