"""Common extra columns of public sets, in usual spellings: system, tools, scores, margin.

Shipped layouts that name no such column themselves read them. A column that a layout lists under
`optional` is not read: its author knew of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prefdata.read.adapt.fields import DECIMAL, column_names, role_of
from prefdata.read.adapt.messages import SYSTEM
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.model import Layout
from prefdata.read.unread import EMPTY, words_of

SYSTEM_WORDS = [["system"], ["system", "prompt"], ["system", "message"], ["system", "instruction"]]
TOOLS = [["tools"]]
SCORES = [
    [*more, word]
    for word in ("score", "rating", "reward")
    for more in ([], ["avg"], ["average"], ["mean"], ["overall"], ["quality"], ["rm"])
] + [["reward", "score"], ["scores"], ["ratings"], ["rewards"]]
MARGIN = [
    ["margin"],
    ["score", "margin"],
    ["rating", "margin"],
    ["reward", "margin"],
    ["preference", "margin"],
]
WHOLE_DIALOGUES = ("common_turns", "last_turn", "chosen_dialogue", "after_prompt")


def usual_columns(layout: Layout, rows: Sequence[Object]) -> dict[str, str]:
    """Return the layout's fields that the rows have in a usual spelling, each with its column."""
    filled = ({name: value for name, value in row.items() if value not in EMPTY} for row in rows)
    free = free_columns(layout, filled)
    found = dict(_prompt_columns(layout, free, rows))
    if layout.chosen and layout.rejected:
        found |= _score_columns(layout, free, rows)
    return found


def free_columns(layout: Layout, rows: Iterable[Object]) -> list[str]:
    """Return the columns that the layout does not know."""
    known = layout.read.union(layout.optional)
    return [name for name in column_names(rows) if name not in known]


def with_usual_columns(layout: Layout, found: dict[str, str]) -> Layout:
    """Return the layout that also reads these columns; gathered rows of a prompt agree on them."""
    gather = layout.gather
    own = [found[name] for name in ("system", "tools") if name in found]
    if gather and gather.by and own:
        gather = gather.model_copy(update={"by": [*gather.by, *own]})
    return layout.model_copy(update={**found, "gather": gather})


def _prompt_columns(
    layout: Layout, free: list[str], rows: Sequence[Object]
) -> Iterator[tuple[str, str]]:
    is_chat = (layout.form == "chat" or layout.plain) and layout.tree is None
    if is_chat and not layout.system and (layout.prompt or layout.sides in WHOLE_DIALOGUES):
        yield from _first("system", SYSTEM_WORDS, free, rows, _is_system)
    if is_chat and not layout.tools:
        yield from _first("tools", TOOLS, free, rows, _is_tools)


def _score_columns(layout: Layout, free: list[str], rows: Sequence[Object]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not (layout.score_chosen or layout.score_rejected):
        for words in SCORES:
            names = [_spelled(free, side, words) for side in ("chosen", "rejected")]
            pair = [name for name in names if name and _hold(rows, name, _is_number)]
            if len(pair) == 2:
                found |= zip(("score_chosen", "score_rejected"), pair, strict=True)
                break
    if not layout.margin:
        found |= dict(_first("margin", MARGIN, free, rows, _is_number))
    return found


def _spelled(names: list[str], side: str, words: list[str]) -> str | None:
    """Return the column named by a side and these words, in either order, with any separator."""
    wanted = ([side, *words], [*words, side])
    return next((name for name in names if words_of(name) in wanted), None)


def _first(
    field: str,
    spellings: list[list[str]],
    names: list[str],
    rows: Sequence[Object],
    test: Callable[[Any], bool],
) -> Iterator[tuple[str, str]]:
    for words in spellings:
        name = next((name for name in names if words_of(name) == words), None)
        if name and _hold(rows, name, test):
            yield field, name
            return


def _hold(rows: Sequence[Object], name: str, test: Callable[[Any], bool]) -> bool:
    """Return whether all values of a column pass the test; empty ones are ignored."""
    return all(test(row[name]) for row in rows if row.get(name) not in EMPTY)


def _is_number(value: Any) -> bool:
    if type(value) is str:
        return DECIMAL.fullmatch(value) is not None
    return type(value) in (int, float)


def _is_system(value: Any) -> bool:
    items = value if type(value) is list else [value]
    return type(value) is str or all(role_of(item) in SYSTEM for item in items)


def _is_tools(value: Any) -> bool:
    return type(value) is list or (type(value) is str and value.lstrip()[:1] == "[")
