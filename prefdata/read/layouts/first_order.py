"""Guess of what orders the candidates of a row, by the columns of a file's first rows."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson

from prefdata.read.adapt.fields import column_names
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.detect import TESTS
from prefdata.read.unread import meaning_of, words_of

_MARKS = (
    tuple("abcdefgh"),
    tuple("01234567"),
    tuple("12345678"),
    ("first", "second", "third"),
    ("left", "right"),
    ("one", "two", "three"),
    ("x", "y"),
    ("i", "j"),
    ("j", "k"),
)
"""Words that tell the candidates of a row apart in the names of their columns."""
_SCORES = frozenset(("score", "scores", "rating", "ratings", "reward", "rewards", "points", "elo"))
_RANKS = frozenset(("rank", "ranks", "ranking", "position", "place"))
_ACCEPTED = frozenset(
    ("acceptable", "accepted", "correct", "good", "valid", "right", "ok", "okay", "indices", "best")
)
_TIES = frozenset(
    (
        *("tie", "tied", "equal", "same", "both", "neither", "draw", "none", "null", "both_bad"),
        *("bothbad", "tie (bothbad)", "both bad", "no preference", "undecided", "even", "unsure"),
    )
)
MOST_LABELS = 8
_MOST_LABEL = 40  # characters


class Columns(NamedTuple):
    """Columns of a file's first rows, with the values of each."""

    values: dict[str, list[Any]]

    def of(self, name: str) -> list[Any]:
        """Return the values that are not null."""
        return [value for value in self.values[name] if value is not None]

    def are(self, name: str, kind: str) -> bool:
        """Return whether nearly all values that are there are of a kind."""
        found = self.of(name)
        good = sum(TESTS[kind](value) for value in found)  # type: ignore[index]
        return bool(found) and good >= 0.9 * len(found)

    def is_spoken(self, name: str) -> bool:
        """Return whether a column holds text or messages."""
        return self.are(name, "text") or self.are(name, "messages") or self.are(name, "turn")

    def all_lists(self, name: str) -> bool:
        """Return whether all values that are there are lists."""
        return bool(self.of(name)) and all(type(value) is list for value in self.of(name))

    def inside(self, name: str) -> list[Any]:
        """Return the items of all lists of a column."""
        return [item for value in self.of(name) if type(value) is list for item in value]

    def size(self, name: str) -> int:
        """Return the number of characters in a column, to find the longest."""
        return sum(len(canonical_json(value)) for value in self.of(name))


class Guess(NamedTuple):
    """Lines of YAML, and the columns that they read."""

    lines: list[str]
    used: list[str]


class Items(NamedTuple):
    """Candidates whose order is looked for."""

    columns: Columns
    names: list[str]
    """Their columns, or the one that holds a list of them."""
    num: int
    inner: Sequence[Any] = ()
    """The items of all lists."""

    @property
    def rest(self) -> list[str]:
        """The columns that may order them."""
        return [name for name in self.columns.values if name not in self.names]

    def place_of(self, value: Any, values: Sequence[Any]) -> int | str | None:
        """Return the candidate that a label means, `tie`, or None if that is not clear."""
        text = str(value).strip().lower()
        names = [name.lower() for name in self.names]
        if value is None or text in _TIES:
            return "tie"
        if text in names:
            return names.index(text)
        initials = [name[:1] for name in names]
        if text in initials and text not in _MARKS[0] and len(set(initials)) == self.num:
            return initials.index(text)
        if text.isdigit() or type(value) in (int, float, bool):
            return _number_of(value, values, self.num)
        last = (split_name(str(value)) or [""])[-1]
        places = (marks.index(last) for marks in _MARKS if last in marks[: self.num])
        return next(places, None)

    def speaks_of(self, values: Sequence[Any]) -> bool:
        """Return whether most values name a candidate or a tie."""
        known = [self.place_of(value, values) is not None for value in values]
        return sum(known) * 2 > len(known)


def _number_of(value: Any, values: Sequence[Any], num: int) -> int | None:
    """Return the place of a number: counted from 1 if there are 1 to `num`, and no 0."""
    numbers = [one for one in map(_as_float, values) if one is not None]
    start = 1 if numbers and max(numbers) == num and min(numbers) > 0 else 0
    number = _as_float(value)
    place = -1 if number is None or not number.is_integer() else int(number) - start
    return place if 0 <= place < num else None


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def find_order(items: Items) -> Guess:
    """Return what orders the candidates: scores, votes, places, a strength or a label."""
    finders = (_inner_scores, _scores, _votes, _acceptable, _strength, _label)
    found = next(filter(None, (finder(items) for finder in finders)), None)
    return found or Guess(["  in_order: true    # check: no column looks like a preference"], [])


def _inner_scores(items: Items) -> Guess | None:
    """Find a score or a rank in each candidate."""
    objects = [item for item in items.inner if type(item) is dict]
    for key in column_names(objects):
        numbers = all(type(one.get(key)) in (int, float) for one in objects)
        if numbers and not _SCORES.isdisjoint(words_of(key)):
            return Guess([f"  score: {quoted(key)}    # higher is better: check"], [])
        if numbers and not _RANKS.isdisjoint(words_of(key)):
            line = f"  rank: {{path: {quoted(key)}, best: low}}    # 1 is the best: check"
            return Guess([line], [])
    return None


def _scores(items: Items) -> Guess | None:
    """Find a list of scores, or a column of them for each candidate."""
    columns = items.columns
    for name in items.rest:
        numbers = columns.all_lists(name) and _are_numbers(columns.inside(name))
        if numbers and not _SCORES.isdisjoint(words_of(name)):
            return Guess([f"  parallel: {{score: {quoted(name)}}}"], [name])
    for family in families(columns, lambda name: columns.are(name, "number")):
        if len(family) == items.num == len(items.names):
            names = ", ".join(map(quoted, family))
            return Guess([f"  parallel: {{score: [{names}]}}    # higher is better: check"], family)
    return None


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)


def _votes(items: Items) -> Guess | None:
    """Find the votes of several annotators, in several columns or in a list."""
    columns, rest = items.columns, items.rest
    for family in sorted(families(columns, lambda name: name in rest), key=len, reverse=True):
        votes = [value for name in family for value in columns.of(name)]
        if len(family) > 2 and _are_labels(votes) and items.speaks_of(votes):
            names = ", ".join(map(quoted, family))
            lines = ["  votes:", f"    columns: [{names}]", *_map(votes, items)]
            return Guess(lines, family)
    for name in rest:
        if columns.all_lists(name) and _ACCEPTED.isdisjoint(words_of(name)):
            found = _votes_in(columns.inside(name), items)
            if found is not None:
                key, votes = found
                lines = ["  votes:", f"    columns: {quoted(name)}"]
                lines += [f"    value: {quoted(key)}"] if key else []
                return Guess([*lines, *_map(votes, items)], [name])
    return None


def _votes_in(values: Sequence[Any], items: Items) -> tuple[str, list[Any]] | None:
    """Return the key of the vote in the items of a list, empty if they are votes; and the votes."""
    objects = [value for value in values if type(value) is dict]
    best: tuple[int, str, list[Any]] = (0, "", [])
    for key in ["", *column_names(objects)]:
        votes = [value.get(key) for value in objects] if key else list(values)
        votes = [vote for vote in votes if vote is not None]  # nulls are left out
        if _are_labels(votes) and items.speaks_of(votes):
            known = sum(items.place_of(vote, votes) is not None for vote in votes)
            best = max(best, (known, key, votes), key=lambda one: one[0])
    return best[1:] if best[0] else None


def _acceptable(items: Items) -> Guess | None:
    """Find a list of the places of good candidates."""
    for name in items.rest:
        places = items.columns.inside(name) if items.columns.all_lists(name) else []
        if places and all(type(place) is int and 0 <= place <= items.num for place in places):
            first = 0 if 0 in places or max(places) < items.num else 1
            sure = 0 in places or max(places) == items.num
            note = "" if sure else "    # check: is the first candidate 0 or 1?"
            line = f"  acceptable: {{column: {quoted(name)}, first: {first}}}{note}"
            return Guess([line], [name])
    return None


def _strength(items: Items) -> Guess | None:
    """Find a number that is a strength: from 1 to 2, from 0 to 1, or from below 0 to above."""
    columns = items.columns
    for name in items.rest if items.num == 2 else []:
        values = columns.of(name)
        if not values or not _are_numbers(values):
            continue
        center = _center_of(values)
        if center is not None:
            middle = f", center: {center:g}" if center else ""
            note = f"below {center:g} prefers the first: check"
            line = f"  strength: {{column: {quoted(name)}, first: negative{middle}}}"
            return Guess([f"{line}    # {note}"], [name])
    return None


def _center_of(values: Sequence[float]) -> float | None:
    """Return the number that is a tie; None if the values are something else."""
    low, high = min(values), max(values)
    if low < 0 < high:
        return 0.0
    if all(float(value).is_integer() for value in values):
        return None
    return next((start + 0.5 for start in (1, 0) if start <= low and high <= start + 1), None)


def _label(items: Items) -> Guess | None:
    """Find a column that names the winner."""
    columns = items.columns
    labels = [name for name in items.rest if _are_labels(columns.of(name))]
    named = [name for name in labels if items.speaks_of(columns.of(name))]
    meant = [name for name in labels if meaning_of(name) == "label"]
    best = next(iter([*(name for name in meant if name in named), *named, *meant]), None)
    if best is None:
        return None
    lines = ["  label:", f"    column: {quoted(best)}", *_map(columns.values[best], items)]
    return Guess(lines, [best])


def _are_labels(values: Sequence[Any]) -> bool:
    """Return whether values are words or numbers of which there are few."""
    plain = all(value is None or type(value) in (str, int, bool, float) for value in values)
    if not values or not plain or all(value is None for value in values):
        return False
    short = all(len(str(value)) <= _MOST_LABEL for value in values)
    return short and len({str(value) for value in values}) <= MOST_LABELS


def _map(values: Sequence[Any], items: Items) -> list[str]:
    """Return the lines of a `map`: each value found, with its meaning or a question."""
    said = [value if type(value) is str else canonical_json(value) for value in values]
    example = dict(zip(said, values, strict=True))
    lines = ["    map:"]
    for word, count in sorted(Counter(said).items()):
        value = example[word]
        place = items.place_of(value, values)
        key = quoted(word) if type(value) is str else word
        if place is None:
            lines.append(f"      # {key}: ?    # {count:,} rows: write 0, 1 … or tie")
            continue
        sure = type(value) is str and not word.isdigit()
        lines.append(f"      {key}: {place}    # {count:,} rows{'' if sure else ': check'}")
    return lines


def families(columns: Columns, accept: Callable[[str], bool]) -> list[list[str]]:
    """Return groups of columns whose names differ in one mark alone, in the order of the marks."""
    found: list[list[str]] = []
    by_words = {tuple(split_name(name)): name for name in columns.values if accept(name)}
    for words in by_words:
        for at, word in enumerate(words):
            for marks in _MARKS:
                if word != marks[0]:
                    continue
                names = [by_words.get((*words[:at], mark, *words[at + 1 :])) for mark in marks]
                own = [name for name in names[: _until(names)] if name is not None]
                if len(own) > 1:
                    found.append(own)
    return found


def _until(names: Sequence[str | None]) -> int:
    return next((at for at, name in enumerate(names) if name is None), len(names))


def split_name(name: str) -> list[str]:
    """Return the words of a name, also where a single letter ends it: `responseA`, `answer1`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]", name)]


def quoted(text: str) -> str:
    """Return a text as YAML, in quotes if it needs them.

    >>> quoted("answer_a"), quoted("yes"), quoted("a: b")
    ('answer_a', '"yes"', '"a: b"')
    """
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text)
    words = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return text if plain and text.lower() not in words else orjson.dumps(text).decode()
