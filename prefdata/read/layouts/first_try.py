"""A first try of a layout for a file that none fits: a guess by its columns, for a user to check.

The guess is never used by itself. It is written as YAML, with the columns found in comments, and
what is uncertain is marked `check`.
"""

from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Any

from prefdata.read.adapt.fields import column_names
from prefdata.read.adapt.ids import canonical_json, shorten
from prefdata.read.detect import TESTS
from prefdata.read.layouts.first_order import (
    MOST_LABELS,
    Columns,
    Guess,
    Items,
    families,
    find_order,
    quoted,
)
from prefdata.read.unread import kind_of, meaning_of, words_of
from prefdata.records.secrets import visible

_BETTER = (
    ("chosen", "rejected"),
    ("better", "worse"),
    ("good", "bad"),
    ("winner", "loser"),
    ("win", "lose"),
    ("preferred", "dispreferred"),
    ("accepted", "rejected"),
    ("positive", "negative"),
    ("pos", "neg"),
)
_ANSWERS = frozenset(
    (
        *("answer", "answers", "response", "responses", "output", "outputs", "completion"),
        *("completions", "reply", "replies", "candidate", "candidates", "generation"),
        *("generations", "text", "texts", "summary", "summaries", "conversation", "option"),
        *("options", "solution", "solutions", "model", "result", "results", "samples"),
    )
)
_PROMPTS = frozenset(
    (
        *("prompt", "question", "instruction", "query", "input", "task", "problem", "request"),
        *("post", "context", "user", "history", "dialogue", "conversation"),
    )
)
_WIDTH = 88


def first_try(rows: Sequence[dict[str, Any]], name: str, file: str) -> Iterator[str]:
    """Yield the lines of a first try of a layout for rows; never empty, and always valid YAML."""
    columns = Columns({column: [row.get(column) for row in rows] for column in column_names(rows)})
    answers = _answers(columns)
    used = [] if answers is None else answers.used
    prompt = _prompt(columns, used)
    yield f"# A first try for {file}, from its first {len(rows):,} rows. Correct it, and see:"
    yield f"#   prefdata layouts {name}.yaml --try {quote(file)}"
    yield "#"
    yield "# Columns, with the kind and an example of each:"
    for column, values in columns.values.items():
        yield f"#   {quoted(column)}: {_about(columns.of(column), len(values))}"
    yield ""
    own = [*([prompt] if prompt else []), *used]
    own = [one for one in own if None not in columns.values[one]]  # these need a value in each row
    yield f"columns: {{{', '.join(f'{quoted(one)}: {_kind(columns, one)}' for one in own)}}}"
    if prompt:
        yield f"prompt: {quoted(prompt)}"
    elif answers is None or not any(line.startswith("sides") for line in answers.lines):
        yield "prompt: PROMPT    # check: no column looks like a prompt"
    system = next((n for n in columns.values if meaning_of(n) == "system"), None)
    if system and columns.are(system, "text"):
        yield f"system: {quoted(system)}"
    yield from answers.lines if answers else _UNKNOWN


_UNKNOWN = [
    "# check: no columns look like two answers. With one column each:",
    "chosen: CHOSEN",
    "rejected: REJECTED",
]


def _answers(columns: Columns) -> Guess | None:
    """Return the part of a layout that says where the answers are, and which is better."""
    for finder in (_better_and_worse, _in_columns, _in_a_list, _in_a_dialogue):
        found = finder(columns)
        if found is not None:
            return found
    return None


def _better_and_worse(columns: Columns) -> Guess | None:
    """Find two columns whose names say which is better."""
    for better, worse in _BETTER:
        for name in columns.values:
            words = words_of(name)
            if better not in words or not columns.is_spoken(name):
                continue
            other = [worse if word == better else word for word in words]
            match = next((n for n in columns.values if words_of(n) == other), None)
            if match and columns.is_spoken(match):
                lines = [f"chosen: {quoted(name)}", f"rejected: {quoted(match)}"]
                return Guess(lines, [name, match])
    return None


def _in_columns(columns: Columns) -> Guess | None:
    """Find columns that differ in a mark alone, such as `answer_a` and `answer_b`."""
    groups = families(columns, columns.is_spoken)
    groups = [one for one in groups if not _is_short(columns, one)] or groups
    if not groups:
        return None
    named = [one for one in groups if not _ANSWERS.isdisjoint(words_of(one[0]))]
    items = max(named or groups, key=lambda one: columns.size(one[0]))
    order = find_order(Items(columns, items, len(items)))
    lines = ["candidates:", f"  items: [{', '.join(map(quoted, items))}]", *order.lines]
    return Guess(lines, [*items, *order.used])


def _is_short(columns: Columns, family: Sequence[str]) -> bool:
    """Return whether columns hold names or labels: few different values, of one word."""
    values = [value for name in family for value in columns.of(name)]
    different = {canonical_json(value) for value in values}
    return len(different) <= max(3, len(values) // 4) or (all(
        type(value) is str and " " not in value and len(value) < 40 for value in values
    ) and len(different) * 2 <= len(values))  # fmt: skip


def _in_a_list(columns: Columns) -> Guess | None:
    """Find a column that holds a list of answers, as texts or as objects with one."""
    best, key = None, ""
    for name in columns.values:
        lists = [value for value in columns.of(name) if type(value) is list and len(value) > 1]
        if not lists or len(lists) < 0.5 * len(columns.of(name)) or columns.are(name, "messages"):
            continue
        path = _path_of_text([item for one in lists for item in one])
        if path is not None and (best is None or columns.size(name) > columns.size(best)):
            best, key = name, path
    if best is None:
        return None
    first = next(value for value in columns.of(best) if type(value) is list)
    inner = columns.inside(best)
    order = find_order(Items(columns, [best], len(first), inner))
    lines = ["candidates:", f"  items: {quoted(best)}"]
    lines += [f"  text: {quoted(key)}"] if key else []
    return Guess([*lines, *order.lines], [best, *order.used])


def _path_of_text(items: Sequence[Any]) -> str | None:
    """Return the key of an answer in the items of a list; empty if the items are texts."""
    if all(type(item) is str or TESTS["messages"](item) for item in items):
        return ""
    if not all(type(item) is dict for item in items):
        return None
    keys = [key for key in column_names(items) if type(items[0].get(key)) in (str, list)]
    named = [key for key in keys if not _ANSWERS.isdisjoint(words_of(key))] or keys
    return max(named, key=lambda key: len(str(items[0].get(key))), default=None)


def _in_a_dialogue(columns: Columns) -> Guess | None:
    """Find a dialogue whose last two turns are both the assistant's."""
    for name in columns.values:
        if not columns.are(name, "messages"):
            continue
        roles = [[turn.get("role", turn.get("from")) for turn in one] for one in columns.of(name)]
        if all(len(one) > 2 and one[-1] == one[-2] for one in roles):
            order = find_order(Items(columns, [name], 2))
            lines = ["sides: last_two_turns", "candidates:", f"  items: {quoted(name)}"]
            return Guess([*lines, *order.lines], [name, *order.used])
    return None


def _kind(columns: Columns, name: str) -> str:
    """Return the kind of a column, as `columns` of a layout has it."""
    kinds = ("text", "messages", "turn", "number", "flag", "list")
    return next((kind for kind in kinds if columns.are(name, kind)), "any")


def _prompt(columns: Columns, used: Sequence[str]) -> str | None:
    """Return the column that is likely the prompt."""
    if any(columns.are(name, "messages") and _ends_twice(columns, name) for name in used):
        return None
    rest = [name for name in columns.values if name not in used and columns.is_spoken(name)]
    named = [name for name in rest if not _PROMPTS.isdisjoint(words_of(name))]
    rest = [name for name in rest if meaning_of(name) != "system" and "id" not in words_of(name)]
    return max(named or rest, key=lambda name: columns.size(name), default=None)


def _ends_twice(columns: Columns, name: str) -> bool:
    last = [one[-1].get("role", one[-1].get("from")) for one in columns.of(name) if len(one) > 1]
    before = [one[-2].get("role", one[-2].get("from")) for one in columns.of(name) if len(one) > 1]
    return bool(last) and last == before


def _about(values: Sequence[Any], num: int) -> str:
    """Return the kind of a column's values, the share that is there, and an example."""
    if not values:
        return "empty"
    share = "" if len(values) == num else f" in {len(values):,} of {num:,} rows"
    different = {canonical_json(value) for value in values}
    few = len(different) <= MOST_LABELS and len(different) * 2 <= len(values)
    shown = ", ".join(sorted(different)) if few else canonical_json(values[0])
    return f"{kind_of(values[0])}{share}: {shorten(visible(shown), _WIDTH - 30)}"
