"""Orders of the candidates of a row: by label, strength, votes, tiers, ranks or scores."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

from blake3 import blake3

from prefdata.read.adapt.fields import (
    MISSING,
    at_path,
    getter,
    optional_number,
    read_flag,
    require,
)
from prefdata.read.adapt.ids import Messages, canonical_json
from prefdata.read.faults import RowError
from prefdata.read.layouts.candidates import (
    Acceptable,
    Candidates,
    Label,
    LabelMap,
    Location,
    Strength,
    Votes,
)
from prefdata.read.limits import Pairing
from prefdata.records.secrets import quote


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
    if spec.votes:
        votes = spec.votes
        return lambda row, found: _by_votes(votes, row, len(found))
    if spec.acceptable:
        acceptable = spec.acceptable
        return lambda row, found: _by_places(acceptable, row, len(found))
    return _by_candidates(spec)


def _by_candidates(spec: Candidates) -> Orderer:
    """Return the function that orders candidates by what they hold themselves."""
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
    value = at_path(column, row)
    if not (value is None and "null" in label.map):
        value = require(column, value, "any")
    return _location(column, value, label.map)


def _location(place: str, value: Any, known: LabelMap) -> Location:
    """Return the winner that a label or a vote names; raise R210 if it names none."""
    if type(value) is float and value.is_integer():
        value = int(value)
    said = value if type(value) is str else canonical_json(value)
    if said not in known:
        raise RowError("R210", f"`{place}` is {quote(said, 40)!r}, not one of {', '.join(known)}")
    return known[said]


def _by_votes(votes: Votes, row: dict[str, Any], num: int) -> Order:
    """Order by the majority of the votes, with its share of them as the margin."""
    given = _votes(votes, row)
    if not given:
        raise RowError("R211", f"`{_joined(votes.columns)}` holds no vote")
    counts = Counter(_location(place, value, votes.map) for place, value in given)
    (winner, most), *others = counts.most_common()
    if isinstance(winner, int) and not 0 <= winner < num:
        raise RowError("R210", f"the votes name place {winner} of {num} completions")
    if winner == "tie" or any(count == most for _, count in others):
        return Order([0.0] * num)
    return Order([float(place == winner) for place in range(num)], margin=most / len(given))


def _votes(votes: Votes, row: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the votes that were given, each with its place."""
    if isinstance(votes.columns, list):
        found = [(path, at_path(path, row)) for path in votes.columns]
    else:
        items = require(votes.columns, at_path(votes.columns, row), "list")
        get = getter(votes.value) if votes.value else None
        found = [
            (f"{votes.columns}[{at}]", item if get is None else get(item))
            for at, item in enumerate(items)
        ]
    missing = next((place for place, value in found if value is MISSING), None)
    if missing is not None:
        raise RowError("R211", f"`{missing}` is missing")
    return [(place, value) for place, value in found if value is not None or "null" in votes.map]


def _joined(paths: str | list[str]) -> str:
    return ", ".join(paths) if isinstance(paths, list) else paths


def _by_places(acceptable: Acceptable, row: dict[str, Any], num: int) -> Order:
    """Order acceptable candidates before the others; PD303 if all or none are acceptable."""
    path = acceptable.column
    places = set()
    for value in require(path, at_path(path, row), "list"):
        number = optional_number(path, value)
        place = -1 if number is None else int(number) - acceptable.first
        if number is None or not number.is_integer() or not 0 <= place < num:
            last = num - 1 + acceptable.first
            said = canonical_json(value)[:40]
            raise RowError("R210", f"`{path}` has {said}, not a place in {acceptable.first}…{last}")
        places.add(place)
    return Order([0.0 if place in places else -1.0 for place in range(num)], tiered=True)


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
    value -= strength.center
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
