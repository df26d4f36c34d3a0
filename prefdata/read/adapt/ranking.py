"""What orders the candidates of a row: a label, a strength, tiers, ranks or scores."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from prefdata.read.adapt.fields import getter, optional_number, read_flag, require
from prefdata.read.adapt.ids import Messages, canonical_json
from prefdata.read.faults import RowError
from prefdata.read.layouts.model import Candidates, Label, Location, Strength


class Candidate(NamedTuple):
    """One completion, and what orders it."""

    completion: Messages
    score: float | None = None
    rank: float | None = None  # turned round where low is best, so that higher is better
    model: str | None = None
    tier: int | None = None  # 0 is the best


class Order(NamedTuple):
    """A value for each candidate, higher is better; by how much, where the row says it."""

    values: list[float]
    margin: float | None = None
    tiered: bool = False
    """Equal values then are no ties: those candidates were never compared."""


Orderer = Callable[[dict[str, Any], Sequence[Candidate]], Order]


def orderer(spec: Candidates) -> Orderer:
    """What puts the candidates of a layout's rows in order."""
    if spec.label:
        label = spec.label
        return lambda row, found: _by_label(label, row, len(found))
    if spec.strength:
        strength = spec.strength
        return lambda row, found: _by_strength(strength, row, len(found))
    if spec.good or (spec.in_order and isinstance(spec.items, list)):
        return lambda _row, found: Order([-float(one.tier or 0) for one in found], tiered=True)
    if spec.in_order:
        return lambda _row, found: Order([-float(place) for place in range(len(found))])
    return lambda _row, found: _by_numbers(found)


def read_tier(path: str, value: Any) -> int:
    """0 of a good candidate, 1 of another."""
    is_good = read_flag(require(path, value, "any"))
    if is_good is None:
        raise RowError("R210", f"`{path}` is {canonical_json(value)[:40]}, neither true nor false")
    return 0 if is_good else 1


def _by_numbers(found: Sequence[Candidate]) -> Order:
    """Ranks where all candidates have one, else scores."""
    for name, values in (("rank", [c.rank for c in found]), ("score", [c.score for c in found])):
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            return Order(known)
        if known:
            missing = len(values) - len(known)
            raise RowError("R211", f"{missing} of {len(values)} completions have no {name}")
    raise RowError("R211", "the completions have neither a rank nor a score")


def _by_label(label: Label, row: dict[str, Any], num: int) -> Order:
    winner = _one_hot(label, row) if label.one_hot else _named(label, row)
    if isinstance(winner, int) and not 0 <= winner < num:
        raise RowError("R210", f"the label names place {winner} of {num} completions")
    return Order([float(place == winner) for place in range(num)])


def _named(label: Label, row: dict[str, Any]) -> Location:
    column = label.column or ""
    value = require(column, getter(column)(row), "any")
    if type(value) is float and value.is_integer():
        value = int(value)
    said = value if type(value) is str else canonical_json(value)
    if said not in label.map:
        known = ", ".join(label.map)
        raise RowError("R210", f"`{column}` is {said!r}, which is none of {known}")
    return label.map[said]


def _one_hot(label: Label, row: dict[str, Any]) -> Location:
    won = [
        place
        for column, place in label.one_hot.items()
        if read_tier(column, getter(column)(row)) == 0
    ]
    if len(won) != 1:
        columns = ", ".join(label.one_hot)
        raise RowError("R210", f"{len(won)} of {columns} are 1, which must be one")
    return won[0]


def _by_strength(strength: Strength, row: dict[str, Any], num: int) -> Order:
    path = strength.column
    value = optional_number(path, require(path, getter(path)(row), "any"))
    assert value is not None
    if num != 2:
        raise RowError("R210", f"`{path}` compares two completions, and the row has {num}")
    if strength.largest is not None and abs(value) > strength.largest:
        raise RowError("R210", f"`{path}` is {value:g}, beyond {strength.largest:g}")
    first = value if strength.first == "positive" else -value
    return Order([first, 0.0], margin=abs(value))
