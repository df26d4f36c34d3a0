"""Text cells that hold messages as JSON or as Python's repr, as CSV exports write them."""

import json
import re
from collections.abc import Sequence
from typing import Any

from prefdata.read.adapt.literal import parse_literal
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import Object, parse_line
from prefdata.read.limits import Limits

OPENS = re.compile(r"""\s*(?:"\s*)?[\[{]""")  # a leading quote: JSON text encoded as JSON again
LOOKS = re.compile(
    r"""\s*(?:"\s*)?(?:array\(\s*)?[\[(]?\s*\{\s*\\?["'](?:role|from|content|value|messages)\\?["']\s*:"""
)
ROLE = re.compile(r"""["'\\](?:role|from|messages|conversations)\\?["']\s*:""")
MOST = 0.5  # if this share of a column's texts holds messages, all of them must


def parse_cell(name: str, text: str, limits: Limits) -> Any:
    """Parse a cell; raise RowError if it is neither JSON nor a Python literal."""
    try:
        row = parse_line(b'{"":' + text.encode() + b"}", limits)
        if len(row) == 1:
            inner = row[""]
            is_text = type(inner) is str and OPENS.match(inner) is not None
            return parse_cell(name, inner, limits) if is_text else inner
    except RowError as fault:
        if fault.code not in ("R201", "R205"):
            raise RowError(fault.code, f"`{name}`: {fault.message}") from None
    except UnicodeEncodeError:
        raise RowError("R203", f"`{name}` holds a lone surrogate") from None
    try:
        value = parse_literal(text, limits.max_depth)
    except ValueError:
        problem = "holds text that is neither JSON nor a Python literal"
        raise RowError("R210", f"`{name}` {problem}") from None
    return _guarded(name, value, limits)


def _guarded(name: str, value: Any, limits: Limits) -> Any:
    """Return a literal's value after the checks of JSON: NUL, surrogates, infinities."""
    try:
        line = json.dumps({"": value}, ensure_ascii=False, allow_nan=False).encode()
        return parse_line(line, limits)[""]
    except UnicodeEncodeError:
        raise RowError("R203", f"`{name}` holds a lone surrogate") from None
    except ValueError:
        raise RowError("R205", f"`{name}` holds a number that is not finite") from None
    except RowError as fault:
        raise RowError(fault.code, f"`{name}`: {fault.message}") from None


def parse_columns(row: Object, columns: Sequence[str], limits: Limits = Limits()) -> Object:  # noqa: B008 - immutable
    """Return the row with the text in these columns parsed, if it opens a list or an object."""
    texts = {name: row[name] for name in columns if type(row.get(name)) is str}
    return row | {
        name: parse_cell(name, text, limits) for name, text in texts.items() if OPENS.match(text)
    }


def holds_messages(text: str, limits: Limits) -> bool:
    """Return whether a text is messages written as JSON or as a Python literal."""
    if not OPENS.match(text) or not ROLE.search(text):
        return False
    try:
        return is_messages(parse_cell("", text, limits))
    except RowError:
        return False


def looks_like_messages(text: str) -> bool:
    """Return whether a text begins as messages do; it may be truncated.

    >>> looks_like_messages("[{'role': 'user', 'conte"), looks_like_messages('{"a": 1}')
    (True, False)
    """
    return LOOKS.match(text) is not None


def is_messages(value: Any) -> bool:
    """Return whether a value is a message, a list of messages, or an object with such a list."""
    if type(value) is dict:
        inner = value.get("messages", value.get("conversations"))
        return _is_message(value) or (type(inner) is list and is_messages(inner))
    return type(value) is list and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    if type(value) is not dict:
        return False
    return type(value.get("role", value.get("from"))) is str and (
        not {"content", "value", "tool_calls"}.isdisjoint(value)
    )


def is_texts(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(item) is str for item in value)


def message_columns(rows: Sequence[Object], limits: Limits) -> list[str]:
    """Return the columns in which at least half of the texts hold messages."""
    found = []
    for name in dict.fromkeys(name for row in rows for name in row):
        texts = [row[name] for row in rows if type(row.get(name)) is str and row[name].strip()]
        some = sum(holds_messages(text, limits) for text in texts)
        if texts and some >= MOST * len(texts):
            found.append(name)
    return found


def text_list_columns(rows: Sequence[Object], limits: Limits) -> list[str]:
    """Return `rejected` columns that are all lists of texts; [] if a `chosen` column is too."""
    names = dict.fromkeys(name for row in rows for name in row)
    lists = [name for name in names if _all_lists(rows, name, limits)]
    sides = {side: [n for n in lists if side in n.lower()] for side in ("chosen", "rejected")}
    return [] if sides["chosen"] else sides["rejected"]


def _all_lists(rows: Sequence[Object], name: str, limits: Limits) -> bool:
    texts = [str(row[name]) for row in rows if type(row.get(name)) is str]
    if len(texts) < len(rows) or not all(map(OPENS.match, texts)):
        return False
    try:
        return all(is_texts(parse_cell(name, text, limits)) for text in texts)
    except RowError:
        return False
