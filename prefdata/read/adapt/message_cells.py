"""Text cells that hold messages as JSON or as Python's repr, as CSV exports write them.

Nothing is run: a Python literal is parsed to a syntax tree, in which only constants, lists, tuples
and dicts with text keys are allowed. Numpy's form of a list, without commas, is read too.
"""

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from prefdata.read.adapt.fields import column_names, role_of
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import Object, parse_line
from prefdata.read.limits import Limits
from prefdata.records.secrets import quote

OPENS = re.compile(r"""\s*(?:"\s*)?[\[{]""")  # a leading quote: JSON text encoded as JSON again
LOOKS = re.compile(
    r"""\s*(?:"\s*)?(?:array\(\s*)?[\[(]?\s*\{\s*\\?["'](?:role|from|content|value|messages)\\?["']\s*:"""
)
ROLE = re.compile(r"""["'\\](?:role|from|messages|conversations)\\?["']\s*:""")
MAX_CHARACTERS = 4 * 2**20  # a syntax tree takes about 100 bytes per character
MAX_TOKENS = 100_000
# A whole string is one token, so that brackets and line breaks inside it are ignored.
TOKEN = re.compile(r"""'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\](){}]""", re.S)
BRACKETS = frozenset("[({")
BETWEEN = re.compile(r"\s+")  # between two items of an array that numpy printed
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
    has_role = type(role_of(value)) is str
    return has_role and not {"content", "value", "tool_calls"}.isdisjoint(value)


def message_columns(rows: Sequence[Object], limits: Limits) -> list[str]:
    """Return the columns in which at least half of the texts hold messages."""
    found = []
    for name in column_names(rows):
        texts = [row[name] for row in rows if type(row.get(name)) is str and row[name].strip()]
        some = sum(holds_messages(text, limits) for text in texts)
        if texts and some >= MOST * len(texts):
            found.append(name)
    return found


def text_list_columns(rows: Sequence[Object], limits: Limits) -> list[str]:
    """Return `rejected` columns that are all lists of texts; [] if a `chosen` column is too."""
    lists = [name for name in column_names(rows) if _all_lists(rows, name, limits)]
    sides = {side: [n for n in lists if side in n.lower()] for side in ("chosen", "rejected")}
    return [] if sides["chosen"] else sides["rejected"]


def _all_lists(rows: Sequence[Object], name: str, limits: Limits) -> bool:
    texts = [str(row[name]) for row in rows if type(row.get(name)) is str]
    if len(texts) < len(rows) or not all(map(OPENS.match, texts)):
        return False
    try:
        cells = [parse_cell(name, text, limits) for text in texts]
    except RowError:
        return False
    return all(type(cell) is list and {str} == set(map(type, cell)) for cell in cells)


def parse_literal(text: str, max_depth: int) -> Any:
    """Parse a Python literal; raise ValueError if the text is not one."""
    if len(text) > MAX_CHARACTERS:
        raise RowError("R212", f"a Python literal of {len(text):,} characters")
    try:
        return _value(ast.parse(_with_commas(text.strip(), max_depth), mode="eval").body)
    except (SyntaxError, MemoryError, RecursionError, ValueError) as error:
        raise ValueError("not a Python literal") from error


def _with_commas(text: str, max_depth: int) -> str:
    """Insert commas between objects that only spaces separate; check the depth on the way."""
    depth = at = 0
    parts: list[str] = []
    for number, token in enumerate(TOKEN.finditer(text)):
        mark = token.group()
        if number > MAX_TOKENS:
            raise RowError("R212", f"a Python literal of more than {MAX_TOKENS:,} parts")
        if len(mark) == 1 and mark in BRACKETS:
            gap = text[at : token.start()]
            if mark == "{" and text[at - 1 : at] == "}" and BETWEEN.fullmatch(gap):
                parts.append(",")
            depth += 1
            if depth > max_depth:
                raise RowError("R208", f"nested deeper than {max_depth} levels")
        elif len(mark) == 1:
            depth -= 1
        parts += [text[at : token.start()], mark]
        at = token.end()
    return "".join(parts) + text[at:]


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (str, int, float, bool, type(None)):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return _object(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if type(number) in (int, float):
            return -number
    raise ValueError("not a literal of lists, dicts, texts and numbers")


def _object(node: ast.Dict) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        name = _value(key) if key is not None else None
        if type(name) is not str:
            raise ValueError("a key that is not text")
        if name in found:
            raise RowError("R207", f"the key {quote(name, 80)!r} occurs twice in one object")
        found[name] = _value(value)
    return found
