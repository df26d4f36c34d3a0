"""Which layout a file has, told by its columns; never a guess between two."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from prefdata.errors import UsageError
from prefdata.read.faults import RowFault
from prefdata.read.fields import MISSING, getter
from prefdata.read.layout import Kind, Layout
from prefdata.read.parts import parse_columns
from prefdata.read.shipped import in_force, shipped_layouts

SAMPLE = 64  # rows looked at
NEAREST = 5  # named in an error
CONFIDENT = 0.5  # share of them that must have a layout's columns
# How much a kind says: an HH transcript is text too, so seeing one is the closer fit.
WEIGHT: dict[Kind, int] = {"any": 1, "text": 2, "list": 2, "hh": 3, "dialogue": 2, "answer": 2}
PLAIN_WEIGHT = 3
MARKERS = ("\n\nHuman:", "\n\nAssistant:")


class Fit(NamedTuple):
    """How well a layout describes the sample."""

    layout: Layout
    confidence: float  # share of the rows that have the layout's columns
    weight: int


def detect_layout(first_rows: Sequence[dict[str, Any]], place: str = "input") -> Layout:
    """The one layout that fits best; PD102 with the candidates where none or several do."""
    rows = first_rows[:SAMPLE]
    best = likely(rows)
    if len(best) == 1:
        return in_force(best[0].layout, None, place)
    columns = ", ".join(sorted({str(name) for row in rows for name in row}))
    if best:
        names = " or ".join(f"{fit.layout.name} ({fit.confidence:.0%} of the rows)" for fit in best)
        problem = f"the columns {columns} may be {names}"
    else:
        problem = f"no layout has the columns {columns}{_nearest(_fits(rows))}"
    remedy = "force one with --layout NAME, or write a YAML file of your own (docs/layouts.md)"
    raise UsageError("PD102", place, problem, remedy)


def likely(rows: Sequence[dict[str, Any]]) -> list[Fit]:
    """The layouts that say most of what most of the rows have: one, where it is clear."""
    fits = [fit for fit in _fits(rows) if fit.confidence >= CONFIDENT]
    most = max((fit.weight for fit in fits), default=0)
    return [fit for fit in fits if fit.weight == most]


def _fits(rows: Sequence[dict[str, Any]]) -> list[Fit]:
    return [_fit(layout, rows) for layout in shipped_layouts().values() if layout.detect]


def _fit(layout: Layout, rows: Sequence[dict[str, Any]]) -> Fit:
    paths = [(getter(path), kind) for path, kind in layout.columns.items()]
    matched = sum(
        all(_is_kind(get(row), kind) for get, kind in paths)
        and not any(row.get(name) is not None for name in layout.absent)
        for row in _parsed(rows, layout)
    )
    weight = sum(WEIGHT.get(kind, PLAIN_WEIGHT) for kind in layout.columns.values())
    return Fit(layout, matched / len(rows) if rows else 0.0, weight)


def _parsed(rows: Sequence[dict[str, Any]], layout: Layout) -> Sequence[dict[str, Any]]:
    try:
        return [parse_columns(row, layout.parse) for row in rows] if layout.parse else rows
    except RowFault:  # text that only looks like JSON
        return rows


def _is_kind(value: Any, kind: Kind) -> bool:
    return TESTS[kind](value)


def _is_hh(value: Any) -> bool:
    return type(value) is str and value.startswith(MARKERS)


def _all_have(value: Any, key: str) -> bool:
    return type(value) is list and bool(value) and all(_has(item, key) for item in value)


def _has(item: Any, key: str) -> bool:
    return type(item) is dict and type(item.get(key)) is str


def _is_turn(value: Any) -> bool:
    return _has(value, "from") or _has(value, "role")


def _is_turns(value: Any) -> bool:
    return _all_have(value, "role") or _all_have(value, "from")


TESTS: dict[Kind, Callable[[Any], bool]] = {
    "any": lambda value: value is not MISSING,
    "text": lambda value: type(value) is str,
    "hh": _is_hh,
    "messages": lambda value: _all_have(value, "role"),
    "turns": lambda value: _all_have(value, "from"),
    "turn": lambda value: _is_turn(value),
    "answer": lambda value: type(value) is str or _is_turn(value) or _is_turns(value),
    "dialogue": lambda value: type(value) is str or _all_have(value, "role"),
    "list": lambda value: type(value) is list,
    "number": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
}


def _nearest(fits: Sequence[Fit]) -> str:
    """Layouts that some rows fit, for the error message."""
    some = [
        f"{fit.layout.name} ({fit.confidence:.0%} of the rows)" for fit in fits if fit.confidence
    ][:NEAREST]
    return f"; nearest: {', '.join(some)}" if some else ""
