"""Layout of a file, detected from its columns; ambiguity is an error, never a guess."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from prefdata.errors import UsageError
from prefdata.read.adapt.fields import MISSING, column_names, getter, read_flag
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.adapt.implicit import require_prompt, with_lines
from prefdata.read.adapt.message_cells import parse_columns
from prefdata.read.adapt.one_object import require_rows
from prefdata.read.adapt.sides import MARKERS
from prefdata.read.faults import RowError
from prefdata.read.layouts.model import Kind, Layout
from prefdata.read.layouts.registry import in_force, known_layouts
from prefdata.read.unread import EMPTY, kind_of
from prefdata.records.secrets import quote

SAMPLE = 64  # rows examined
NEAREST = 5  # layouts named in an error
CONFIDENT = 0.5  # share of the sample that must have a layout's columns
# How specific a kind is: an HH transcript is also text, so matching it is the closer fit.
WEIGHT: dict[Kind, int] = {
    "any": 1,
    "text": 2,
    "list": 2,
    "hh": 3,
    "dialogue": 2,
    "answer": 2,
    "question": 1,
}
PLAIN_WEIGHT = 3
SHOWN = 32  # characters of a value in an error
IN_WORDS: dict[Kind, str] = {
    "flag": "true or false",
    "bool": "true or false",
    "hh": "an HH transcript",
    "turn": "one message",
    "turns": "a list of {from, value}",
    "answer": "text or messages",
    "answers": "a list of answers",
    "dialogue": "text or messages",
    "question": "text or one message",
    "list": "a list",
    "number": "a number",
    "filled": "filled",
}


class Fit(NamedTuple):
    """Match of a layout with the sample."""

    layout: Layout
    confidence: float  # share of the rows that have the layout's columns
    weight: int

    def __str__(self) -> str:
        return f"{self.layout.name} ({self.confidence:.0%} of the rows)"


def detect_layout(first_rows: Sequence[dict[str, Any]], place: str = "input") -> Layout:
    """Return the one layout that fits best; PD102 with the candidates if none or several do."""
    rows = first_rows[:SAMPLE]
    best = likely(rows)
    if len(best) == 1:
        try:
            require_prompt(best[0].layout, first_rows, place)
        except UsageError as error:
            named = _of_other_kinds(rows, best[0].layout)
            if not named:
                raise
            raise UsageError("PD102", place, named, _REMEDY) from error
        return with_lines(in_force(best[0].layout, None, place))
    require_rows(rows, place)
    columns = ", ".join(sorted(map(str, column_names(rows))))
    if best:
        problem = f"the columns {columns} may be {' or '.join(map(str, best))}"
    else:
        problem = _of_other_kinds(rows) or f"no layout has the columns {columns}{_nearest(rows)}"
    raise UsageError("PD102", place, problem, _REMEDY)


_REMEDY = (
    "name columns with --prompt-column, --chosen-column and --rejected-column, force a layout"
    " with --layout NAME, or write a YAML file of your own (docs/layouts.md)"
)


def likely(rows: Sequence[dict[str, Any]]) -> list[Fit]:
    """Return the layouts of the highest weight that fit most rows: one, if it is clear."""
    fits = [fit for fit in _fits(rows) if fit.confidence >= CONFIDENT]
    most = max((fit.weight for fit in fits), default=0)
    return [fit for fit in fits if fit.weight == most]


def _fits(rows: Sequence[dict[str, Any]]) -> list[Fit]:
    return [_fit(layout, rows) for layout in known_layouts().values() if layout.detect]


def _fit(layout: Layout, rows: Sequence[dict[str, Any]]) -> Fit:
    paths = [(getter(path), kind) for path, kind in layout.columns.items()]
    matched = sum(
        all(TESTS[kind](get(row)) for get, kind in paths)
        and not any(row.get(name) is not None for name in layout.absent)
        for row in _parsed(rows, layout)
    )
    weight = sum(WEIGHT.get(kind, PLAIN_WEIGHT) for kind in layout.columns.values())
    return Fit(layout, matched / len(rows) if rows else 0.0, weight)


def _parsed(rows: Sequence[dict[str, Any]], layout: Layout) -> Sequence[dict[str, Any]]:
    try:
        return [parse_columns(row, layout.parse) for row in rows] if layout.parse else rows
    except RowError:  # text that only looks like JSON
        return rows


def _is_turn(value: Any, keys: Sequence[str] = ("from", "role")) -> bool:
    return type(value) is dict and any(type(value.get(key)) is str for key in keys)


def _is_turns(value: Any) -> bool:
    return type(value) is list and bool(value) and all(map(_is_turn, value))


def _is_answers(value: Any) -> bool:
    """Return whether all are texts, or all are lists of turns; a list of turns is one answer."""
    return (
        type(value) is list
        and bool(value)
        and (all(type(item) is str for item in value) or all(map(_is_turns, value)))
    )


TESTS: dict[Kind, Callable[[Any], bool]] = {
    "any": lambda value: value is not MISSING,
    "filled": lambda value: value is not MISSING and value not in EMPTY,
    "text": lambda value: type(value) is str,
    "hh": lambda value: type(value) is str and value.startswith(MARKERS),
    "messages": _is_turns,
    "turns": lambda value: _is_turns(value) and all(_is_turn(item, ["from"]) for item in value),
    "turn": _is_turn,
    "answer": lambda value: type(value) is str or _is_turn(value) or _is_turns(value),
    "answers": _is_answers,
    "dialogue": lambda value: type(value) is str or _is_turns(value),
    "question": lambda value: type(value) is str or _is_turn(value),
    "list": lambda value: type(value) is list,
    "number": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "flag": lambda value: read_flag(value) is not None,
}


def _nearest(rows: Sequence[dict[str, Any]]) -> str:
    """Return the nearest layouts for the error message: matching some rows, or most columns."""
    some = [fit for fit in _fits(rows) if fit.confidence][:NEAREST]
    if some:
        return f"; nearest: {', '.join(map(str, some))}"
    names = column_names(rows)
    lacking = [
        (layout, [path for path in layout.columns if path.split(".")[0] not in names])
        for layout in known_layouts().values()
        if layout.detect
    ]
    close = [
        (layout, missing)
        for layout, missing in lacking
        if missing and 2 * len(missing) <= len(layout.columns) and len(layout.columns) > 2
    ]
    if not close:
        return ""
    layout, missing = min(close, key=lambda one: (len(one[1]), -len(one[0].columns)))
    return f"; nearest: {layout.name}, which also needs {' and '.join(map(_code, missing))}"


def _code(name: str) -> str:
    return f"`{name}`"


def _of_other_kinds(rows: Sequence[dict[str, Any]], beyond: Layout | None = None) -> str:
    """Return which columns of the nearest layout have another kind; empty if no layout is near.

    `beyond`: only layouts with all columns of this one, and more.
    """
    least = set(beyond.columns) if beyond else set()
    by_names = [one for one in known_layouts().values() if _has_columns(one, rows)]
    wrong = [
        (layout, _wrong_kinds(layout, rows))
        for layout in by_names
        if not beyond or least < set(layout.columns)
    ]
    if not wrong:
        return ""
    layout, kinds = min(wrong, key=_distance)
    reasons = " and ".join(f"`{path}` is {has}, not {needs}" for path, has, needs in kinds)
    columns = ", ".join(layout.columns)
    return f"the columns {columns} are those of the nearest layout, {layout.name}, but {reasons}"


def _distance(wrong: tuple[Layout, list[tuple[str, str, str]]]) -> tuple[int, int, bool]:
    """Return how far a layout is; TRL's own are the usual ones."""
    layout, kinds = wrong
    return len(kinds), -len(layout.columns), not layout.name.startswith("trl-")


def _has_columns(layout: Layout, rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether a row has all columns of a detectable layout, with any content."""
    paths = [getter(path) for path in layout.columns]
    return layout.detect and any(all(get(row) is not MISSING for get in paths) for row in rows)


def _wrong_kinds(layout: Layout, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return columns of the wrong kind: path, what it contains, what the layout needs."""
    found = []
    for path, kind in layout.columns.items():
        values = [getter(path)(row) for row in rows]
        first = next((value for value in values if not TESTS[kind](value)), None)
        if first is not None:
            found.append((path, _shown(first), IN_WORDS.get(kind, kind)))
    return found


def _shown(value: Any) -> str:
    if value is MISSING:
        return "missing"
    kind = kind_of(value)
    article = "an " if kind == "object" else "a " if kind.startswith(("list", "number")) else ""
    return f"{article}{kind} ({quote(canonical_json(value), SHOWN)})"
