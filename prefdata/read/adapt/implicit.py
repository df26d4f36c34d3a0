"""Layouts without a prompt column: the prompt is the beginning that both sides share.

`{task, chosen, rejected}` is not such a file: its prompt is in `task`, and its answers share only
their first words. So no unread column may hold text, and the shared beginning has to end where a
prompt can end.
"""

from collections.abc import Sequence
from typing import Any

from prefdata.errors import UsageError
from prefdata.read.adapt.fields import role_of
from prefdata.read.adapt.sides import shared_beginning
from prefdata.read.adapt.spellings import free_columns
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.model import Layout

NEARLY_ALL = 0.99
FEW_VALUES = 0.5  # distinct values per row, at most, in a column of tags
ENOUGH_ROWS = 8  # to distinguish tags from prompts
NAMED = 4  # columns, at most, after the first in an error message


def require_prompt(layout: Layout, rows: Sequence[Object], place: str) -> None:
    """Raise PD102 if a detected layout without a prompt column finds no prompt in the rows."""
    if layout.sides == "common_text":
        likely = likely_prompts(layout, rows)
        if likely:
            raise _unread(layout, likely, place)
        _require_shared_beginning(layout, rows, place)
    elif layout.sides == "common_turns" and layout.name == "trl-conv-implicit":
        likely = likely_prompts(layout, rows)
        if likely and _share_of_asked(layout, rows) < NEARLY_ALL:
            raise _unread(layout, likely, place)


def with_lines(layout: Layout) -> Layout:
    """Return the layout for detection: shared text must end at a line, a turn or a marker."""
    if layout.sides == "common_text":
        return layout.model_copy(update={"sides": "common_lines"})
    return layout


def likely_prompts(layout: Layout, rows: Sequence[Object]) -> list[str]:
    """Return the unread columns with text, the likeliest prompt first."""
    free = free_columns(layout, rows)
    texts = {name: [_text(row.get(name)) for row in rows] for name in free}
    some = {name: found for name, found in texts.items() if any(found) and not _is_tag(found)}
    return sorted(some, key=lambda name: (-len(set(some[name])), -sum(map(len, some[name]))))


def _text(value: Any) -> str:
    """Return the text inside a value, joined over nested lists and objects."""
    if type(value) is str:
        return value.strip()
    inner = value.values() if type(value) is dict else value if type(value) is list else ()
    return " ".join(filter(None, map(_text, inner)))


def _is_tag(texts: list[str]) -> bool:
    """Return whether a column repeats a few single words, such as names of sets or models."""
    known = [text for text in texts if text]
    if len(known) < ENOUGH_ROWS or any(len(text.split()) > 1 for text in known):
        return False
    return len(set(known)) <= FEW_VALUES * len(known)


def _share_of_asked(layout: Layout, rows: Sequence[Object]) -> float:
    """Return the share of rows whose sides share a turn that is not the assistant's."""
    asked = 0
    for row in rows:
        first, second = row.get(layout.chosen or ""), row.get(layout.rejected or "")
        if isinstance(first, list) and isinstance(second, list):
            shared = [a for a, b in zip(first, second, strict=False) if a == b]
            asked += any(role_of(turn) not in ("assistant", "gpt") for turn in shared)
    return asked / len(rows)


def _unread(layout: Layout, likely: list[str], place: str) -> UsageError:
    first, *others = likely
    more = f" (or {', '.join(f'`{name}`' for name in others[:NAMED])})" if others else ""
    problem = (
        f"`{first}`{more} holds text and is likely the prompt; without it, what the answers share"
        " would be trained as the prompt"
    )
    remedy = f"pass --prompt-column {first}, or force --layout {layout.name}"
    return UsageError("PD102", place, problem, remedy)


def _require_shared_beginning(layout: Layout, rows: Sequence[Object], place: str) -> None:
    sides = [(row.get(layout.chosen or ""), row.get(layout.rejected or "")) for row in rows]
    texts = [(a, b) for a, b in sides if type(a) is str and type(b) is str and a != b]
    lacking = [pair for pair in texts if not shared_beginning(*pair)]
    if len(lacking) <= (1 - NEARLY_ALL) * len(texts):
        return
    problem = (
        f"no column holds the prompt, and in {len(lacking):,} of the first {len(texts):,} rows"
        " chosen and rejected share no beginning that ends at a line, a turn or a marker"
    )
    remedy = (
        "add a column `prompt`, or name the prompt's column with --prompt-column; if common words"
        f" are the prompt, force --layout {layout.name}"
    )
    raise UsageError("PD102", place, problem, remedy)
