"""Layouts without a prompt column: the prompt is what both sides share, where that is sure.

`{task, chosen, rejected}` is no such file: the prompt lies in `task`, and what the answers share is
their first words. So no column with text may be left, and what is shared has to end where a prompt
can end.
"""

from collections.abc import Sequence
from typing import Any

from prefdata.errors import UsageError
from prefdata.read.adapt.common_prefix import shared_beginning
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.model import Layout

NEARLY_ALL = 0.99
FEW_VALUES = 0.5  # distinct values a row, up to which a column of single words is a tag
ENOUGH_ROWS = 8  # to tell tags from prompts
NAMED = 4  # columns in a message


def require_prompt(layout: Layout, rows: Sequence[Object], place: str) -> None:
    """Raise PD102 unless a detected layout without a prompt column finds its prompt in the rows."""
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
    """The layout as it is detected: what texts share has to end at a line, a turn or a marker."""
    if layout.sides == "common_text":
        return layout.model_copy(update={"sides": "common_lines"})
    return layout


def likely_prompts(layout: Layout, rows: Sequence[Object]) -> list[str]:
    """The columns with text that the layout does not read, the likeliest prompt first."""
    names = dict.fromkeys(name for row in rows for name in row)
    free = [n for n in names if n not in layout.read and n not in layout.optional]
    texts = {name: [_text(row.get(name)) for row in rows] for name in free}
    some = {name: found for name, found in texts.items() if any(found) and not _is_tag(found)}
    return sorted(some, key=lambda name: (-len(set(some[name])), -sum(map(len, some[name]))))


def _text(value: Any) -> str:
    """The text that a value holds, whatever it is wrapped in."""
    if type(value) is str:
        return value.strip()
    inner = value.values() if type(value) is dict else value if type(value) is list else ()
    return " ".join(filter(None, map(_text, inner)))


def _is_tag(texts: list[str]) -> bool:
    """Whether a column holds a few single words again and again, as names of sets and models do."""
    known = [text for text in texts if text]
    if len(known) < ENOUGH_ROWS or any(len(text.split()) > 1 for text in known):
        return False
    return len(set(known)) <= FEW_VALUES * len(known)


def _share_of_asked(layout: Layout, rows: Sequence[Object]) -> float:
    """The share of rows whose sides share their first turns up to a user's one."""
    asked = 0
    for row in rows:
        first, second = row.get(layout.chosen or ""), row.get(layout.rejected or "")
        if isinstance(first, list) and isinstance(second, list):
            shared = [a for a, b in zip(first, second, strict=False) if a == b]
            asked += any(_role(turn) not in ("assistant", "gpt") for turn in shared)
    return asked / len(rows)


def _role(turn: Any) -> Any:
    return turn.get("role", turn.get("from")) if type(turn) is dict else None


def _unread(layout: Layout, likely: list[str], place: str) -> UsageError:
    first, *others = likely
    more = f" (or {', '.join(f'`{name}`' for name in others[:NAMED])})" if others else ""
    problem = (
        f"`{first}`{more} holds text and is likely the prompt; without it, what the answers share"
        " would be trained as their prompt"
    )
    remedy = f"say which with --prompt-column {first}, or force --layout {layout.name}"
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
        "add the prompts as a column `prompt`, or name theirs with --prompt-column; where common"
        f" words are the prompt, force --layout {layout.name}"
    )
    raise UsageError("PD102", place, problem, remedy)
