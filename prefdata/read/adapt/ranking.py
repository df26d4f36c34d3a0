"""Orders of the candidates of a row: by label, strength, tiers, ranks or scores."""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from blake3 import blake3

from prefdata.read.adapt.fields import at_path, optional_number, read_flag, require
from prefdata.read.adapt.ids import Messages, canonical_json
from prefdata.read.faults import RowError
from prefdata.read.layouts.model import Candidates, Label, Location, Strength
from prefdata.read.limits import Pairing


class Candidate(NamedTuple):
    """One completion, and the values that order it."""

    completion: Messages
    score: float | None = None
    rank: float | None = None  # negated if low is best, so that higher is better
    model: str | None = None
    tier: int | None = None  # 0 is the best


class Order(NamedTuple):
    """One value for each candidate, higher is better; and the margin, if the row has one."""

    values: list[float]
    margin: float | None = None
    tiered: bool = False
    """If set, equal values are not ties: those candidates were never compared."""


Orderer = Callable[[dict[str, Any], Sequence[Candidate]], Order]


def orderer(spec: Candidates) -> Orderer:
    """Return the function that orders the candidates of a layout's rows."""
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
    """Return 0 for a good candidate, 1 for another."""
    is_good = read_flag(require(path, value, "any"))
    if is_good is None:
        raise RowError("R210", f"`{path}` is {canonical_json(value)[:40]}, neither true nor false")
    return 0 if is_good else 1


def _by_numbers(found: Sequence[Candidate]) -> Order:
    """Order by ranks if there are any, else by scores; raise R211 if only some have one."""
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
    value = require(column, at_path(column, row), "any")
    if type(value) is float and value.is_integer():
        value = int(value)
    said = value if type(value) is str else canonical_json(value)
    if said not in label.map:
        known = ", ".join(label.map)
        raise RowError("R210", f"`{column}` is {said!r}, not one of {known}")
    return label.map[said]


def _one_hot(label: Label, row: dict[str, Any]) -> Location:
    won = [
        place
        for column, place in label.one_hot.items()
        if read_tier(column, at_path(column, row)) == 0
    ]
    if len(won) != 1:
        columns = ", ".join(label.one_hot)
        raise RowError("R210", f"{len(won)} of {columns} are 1; exactly one must be")
    return won[0]


def _by_strength(strength: Strength, row: dict[str, Any], num: int) -> Order:
    path = strength.column
    value = optional_number(path, require(path, at_path(path, row), "any"))
    assert value is not None
    if num != 2:
        raise RowError("R210", f"`{path}` compares two completions, but the row has {num}")
    if strength.largest is not None and abs(value) > strength.largest:
        raise RowError("R210", f"`{path}` is {value:g}, beyond {strength.largest:g}")
    first = value if strength.first == "positive" else -value
    return Order([first, 0.0], margin=abs(value))


class Match(NamedTuple):
    """Two indices in a list of completions; a tie if neither is better."""

    chosen: int
    rejected: int
    tie: bool


def pair_up(values: Sequence[float], pairing: Pairing, prompt_id: bytes) -> list[Match]:
    """Return the pairs of one prompt's completions, higher values first; ties are included.

    `best_vs_random` draws from the seed and the prompt only, so neither the order nor the number
    of the rows changes the draw.
    """
    order = sorted(range(len(values)), key=lambda place: -values[place])  # stable
    if len(order) < 2:
        return []
    if pairing.strategy == "best_vs_worst":
        places = [(order[0], order[-1])]
    elif pairing.strategy == "adjacent":
        places = list(pairwise(order))
    elif pairing.strategy == "all":
        places = list(combinations(order, 2))
    else:
        worse = [place for place in order if values[place] < values[order[0]]] or order[-1:]
        draw = blake3(pairing.seed.to_bytes(8, "little") + prompt_id).digest(length=8)
        places = [(order[0], worse[int.from_bytes(draw, "little") % len(worse)])]
    return [Match(c, r, values[c] == values[r]) for c, r in places]


def cross_tiers(ranks: Sequence[int]) -> list[Match]:
    """Pair each candidate with each of the next tier; one tier's candidates were never compared.

    >>> [match[:2] for match in cross_tiers([1, 2, 1])]
    [(0, 1), (2, 1)]
    """
    places = range(len(ranks))
    return [
        Match(better, worse, tie=False)
        for better in places
        for worse in places
        if ranks[worse] == ranks[better] + 1
    ]


def dense_ranks(values: Sequence[float]) -> list[int]:
    """Return 1 for the best value and the next number for each worse one; ties share a rank.

    >>> dense_ranks([0.5, 0.9, 0.5])
    [2, 1, 2]
    """
    places = {value: rank for rank, value in enumerate(sorted(set(values), reverse=True), 1)}
    return [places[value] for value in values]
