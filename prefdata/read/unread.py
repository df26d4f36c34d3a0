"""Columns that the layout does not read: number of rows, kind of content, an example."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from prefdata.read.adapt.ids import canonical_json
from prefdata.read.files.parse_json import Object
from prefdata.records.secrets import quote

MAX_COLUMNS = 1000  # distinct columns that are counted by name
OTHERS = "(others)"
EXAMPLE_CHARACTERS = 60
EMPTY: tuple[Any, ...] = (None, "", [], {})
KINDS = {str: "text", bool: "true or false", int: "number", float: "number", dict: "object"}

# Meaning for training of the words in column names; the first match counts.
MEANINGS: dict[str, frozenset[str]] = {
    "images": frozenset({"image", "images", "img", "video", "videos", "audio", "audios"}),
    "system": frozenset({"system", "persona", "sys"}),
    "tools": frozenset({"tools", "tool", "functions"}),
    "margin": frozenset({"margin", "margins"}),
    "scores": frozenset({"score", "scores", "rating", "ratings", "reward", "rewards"}),
    "rank": frozenset({"rank", "ranks", "ranking"}),
    "weight": frozenset({"weight", "weights"}),
    "split": frozenset({"split", "fold"}),
    "history": frozenset({"history", "context", "messages", "conversation", "conversations"}),
    "prompt": frozenset({"prompt", "instruction", "question", "query", "input", "task", "problem"}),
    "label": frozenset({"label", "labels", "preference", "preferred", "winner"}),
}
NO_MEANING = frozenset({"id", "ids", "uuid", "hash", "source", "name", "type", "length", "date"})


class Unread(NamedTuple):
    """One column that is not read."""

    rows: int
    """Number of rows in which it is not empty."""
    kind: str
    """Kind of its values in a word or two; several kinds are joined by commas."""
    example: str
    """Its first value as JSON, truncated."""

    def plus(self, other: "Unread") -> "Unread":
        """Return the sum over two chunks of a file."""
        kinds = dict.fromkeys([*self.kind.split(", "), *other.kind.split(", ")])
        return Unread(self.rows + other.rows, ", ".join(kinds), self.example)


UnreadColumns = dict[str, Unread]


def add_unread(first: UnreadColumns, second: UnreadColumns) -> UnreadColumns:
    """Add the columns of two chunks of a file, in order of first occurrence."""
    total = dict(first)
    for name, found in second.items():
        total[name] = total[name].plus(found) if name in total else found
    return total


def count_unread(row: Object, read: frozenset[str], found: dict[str, list[Any]]) -> None:
    """Count a row's columns that are not in `read`; empty values count as absent."""
    for name in row.keys() - read:
        value = row[name]
        if value in EMPTY:
            continue
        known = found.get(name)
        if known is None:
            if len(found) >= MAX_COLUMNS:
                name = OTHERS
            known = found.setdefault(name, [0, set(), value])
        known[0] += 1
        known[1].add(type(value))


def unread_columns(found: Mapping[str, list[Any]], order: Mapping[str, Any]) -> UnreadColumns:
    """Return the counts with kinds in words and short examples; columns in the rows' order."""
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return {
        name: Unread(
            num,
            ", ".join(sorted({kind_of(first), *(KINDS[one] for one in types if one in KINDS)})),
            quote(canonical_json(first), EXAMPLE_CHARACTERS),
        )
        for name in names
        for num, types, first in [found[name]]
    }


def kind_of(value: Any) -> str:
    """Return the kind of a value in a word or two."""
    if type(value) is not list:
        return KINDS.get(type(value), "text")
    inner = {KINDS.get(type(item), "list") for item in value}
    if inner == {"object"}:
        roles = all(type(item.get("role") or item.get("from")) is str for item in value)
        return "messages" if roles else "list of objects"
    return f"list of {inner.pop()}s" if len(inner) == 1 else "list"


def words_of(name: str) -> list[str]:
    """Return the words of a column's name in lower case.

    >>> words_of("chosenAvg-rating_2")
    ['chosen', 'avg', 'rating', '2']
    """
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+", name)]


def meaning_of(name: str) -> str | None:
    """Return the meaning for training of a column's name; None if it has none.

    >>> meaning_of("score_chosen"), meaning_of("prompt_id"), meaning_of("mood")
    ('scores', None, None)
    """
    words = words_of(name)
    if not NO_MEANING.isdisjoint(words):
        return None
    return next((what for what, said in MEANINGS.items() if not said.isdisjoint(words)), None)
