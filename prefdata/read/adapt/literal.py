"""Python literals in text cells, as `str()` of a list writes them, parsed to JSON values.

Nothing is run: the text is parsed to a syntax tree, in which only constants, lists, tuples and
dicts with text keys are allowed. Numpy's form of a list, without commas, is read too.
"""

import ast
import re
from typing import Any

from prefdata.read.faults import RowError

MAX_CHARACTERS = 4 * 2**20  # a syntax tree takes about 100 bytes per character
MAX_TOKENS = 100_000
# A whole string is one token, so that brackets and line breaks inside it are ignored.
TOKEN = re.compile(r"""'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\](){}]""", re.S)
OPENS = frozenset("[({")
BETWEEN = re.compile(r"\s+")  # between two items of an array that numpy printed


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
        if len(mark) == 1 and mark in OPENS:
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
            raise RowError("R207", f"the key {name!r} occurs twice in one object")
        found[name] = _value(value)
    return found
