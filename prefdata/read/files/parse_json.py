"""Parser from one line of bytes to one JSON object or an error code.

orjson refuses bad UTF-8, lone surrogates, NaN and infinities itself, so those only need a code and
a position. What it accepts (duplicate keys, NUL, huge numbers, deep nesting) is filtered by cheap
upper bounds on the raw bytes; the exact test runs only on the few lines that exceed a bound.
"""

import json
import re
from typing import Any, NoReturn

import orjson

from prefdata.read.faults import RowError
from prefdata.read.limits import Limits
from prefdata.records.secrets import quote

# Every key ends in a quote, optional spaces, and a colon. Text contains the same only as \": or as
# a string that starts with a colon, so the number of matches is at least the number of keys.
KEY_ENDS = re.compile(rb'"[ \t\r\n]*:').findall
NUL_ESCAPE = b"\\u0000"
LONG_NUMBER = re.compile(rb"[0-9]{400}")
NOT_A_NUMBER = re.compile(rb"-?(?:NaN|Infinity|inf|nan)")
NUMBER = re.compile(rb"-?[0-9][0-9.eE+-]*")
FIRST_INEXACT = 2**63  # orjson turns longer integers into floats
LONG_LINE = 2**20
MANY_CONTAINERS, MANY_VALUES = 2**18, 2**19  # at most about 50 MB of Python objects
OUTSIDE_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{,:]', re.DOTALL)
QUOTE, COMMA = b'",'
TEXTS = {str}
FLAT = {str, type(None)}  # a row of only these is one level deep and has no numbers
FLAT_DEPTH = 3  # levels of a row of lists of messages
Object = dict[str, Any]


def parse_line(line: bytes, limits: Limits) -> Object:
    """Return the object on a line, with exact numbers and distinct keys; raise a RowError."""
    if len(line) > LONG_LINE:
        _refuse_many_values(line)
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        _explain(line, error)
    if type(value) is not dict:
        raise RowError("R209", f"the row is {_kind(value)}, not an object")
    keys, inexact = len(value), False
    if not FLAT.issuperset(map(type, value.values())):
        keys, inexact = _survey(value, line, limits)
    if len(KEY_ENDS(line)) != keys:
        _refuse_duplicate_keys(line)
    if not limits.allow_nul and NUL_ESCAPE in line and _has_nul(value):
        raise RowError("R204", "a string contains U+0000; allow_nul keeps such rows")
    return _exact_numbers(line) if inexact else value


def _refuse_many_values(line: bytes) -> None:
    """Raise R216 if a line's Python objects would take many times its length: [], {}, keys."""
    many = line.count(b"[") + line.count(b"{") > MANY_CONTAINERS or line.count(b",") > MANY_VALUES
    if not many and line.count(b":") <= MANY_CONTAINERS:
        return
    counts = [0] * 256
    for token in OUTSIDE_STRINGS.finditer(line):
        first = line[token.start()]
        counts[first] += 1
        if (
            counts[first] > MANY_CONTAINERS
            and first != QUOTE
            and (first != COMMA or counts[first] > MANY_VALUES)
        ):
            most = f"{MANY_CONTAINERS:,} lists, objects or keys, or {MANY_VALUES:,} values"
            raise RowError("R216", f"more than {most} in one row; not read")


def _survey(row: Object, line: bytes, limits: Limits) -> tuple[int, bool]:
    """Return a row's number of keys at all levels, and whether a float may be a cut integer."""
    keys = _keys_of_flat(row)
    if keys is not None and limits.max_depth >= FLAT_DEPTH:
        return keys, False
    if line.count(b"[") + line.count(b"{") > limits.max_depth:
        _refuse_depth(row, limits.max_depth)
    return _survey_deep(row)


def _keys_of_flat(row: Object) -> int | None:
    """Return the number of keys of a row of texts and flat messages, the usual case, or None."""
    keys = len(row)
    for value in row.values():
        if type(value) is list:
            for item in value:
                if type(item) is not dict or not TEXTS.issuperset(map(type, item.values())):
                    return None
                keys += len(item)
        elif type(value) is not str:
            return None
    return keys


def _survey_deep(value: Any) -> tuple[int, bool]:
    """Return the results of `_survey` for a value of any form."""
    keys, inexact = 0, False
    stack = [value]
    while stack:
        item = stack.pop()
        if type(item) is dict:
            keys += len(item)
            stack.extend([child for child in item.values() if type(child) is not str])
        elif type(item) is list:
            stack.extend([child for child in item if type(child) is not str])
        elif type(item) is float and abs(item) >= FIRST_INEXACT:
            inexact = True
    return keys, inexact


def _refuse_depth(value: Any, limit: int) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > limit:
            raise RowError("R208", f"nested deeper than {limit} levels")
        children = (child for item in level for child in _children(item))
        level = [child for child in children if type(child) in (dict, list)]


def _children(item: Any) -> list[Any]:
    if type(item) is dict:
        return list(item.values())
    return item if type(item) is list else []


def _refuse_duplicate_keys(line: bytes) -> None:
    def keep(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RowError("R207", f"the key {quote(key, 80)!r} occurs twice in one object")
            seen.add(key)

    json.loads(line, object_pairs_hook=keep, parse_int=str, parse_float=str)


def _has_nul(value: Any) -> bool:
    if type(value) is str:
        return "\0" in value
    if type(value) is dict and any("\0" in key for key in value):
        return True
    return any(_has_nul(child) for child in _children(value))


def _exact_numbers(line: bytes) -> Object:
    """Return the row parsed again, with integers beyond 64 bits as text of all their digits."""
    value: Object = json.loads(
        line, parse_int=lambda text: int(text) if len(text) < 19 else _exact(text)
    )
    return value


def _exact(text: str) -> int | str:
    if len(text) > 20:
        return text
    number = int(text)
    return number if -(2**63) <= number < 2**64 else text


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _explain(line: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    """Raise the code and position of a line that orjson refused."""
    if "recursion" in error.msg or "depth" in error.msg:
        raise RowError("R208", "nested deeper than 1024 levels")
    try:
        text = line.decode()
    except UnicodeDecodeError as bad:
        byte = f"0x{line[bad.start]:02x}"
        raise RowError("R202", f"not UTF-8: byte {byte} at byte {bad.start} of the row") from None
    at = len(text[: error.pos].encode())  # orjson counts characters, not bytes
    rest, problem = line[at:], error.msg
    if "surrogate" in problem:
        raise RowError("R203", f"a lone surrogate escape near byte {at} of the row")
    if NOT_A_NUMBER.match(rest):
        raise RowError("R205", f"{_head(rest)} at byte {at} is not a JSON number")
    if "infinity" in problem or ("number" in problem and LONG_NUMBER.match(rest.lstrip(b"-"))):
        _explain_number(line, at)
    raise RowError("R201", f"{problem} at byte {at} of the row{_hint(line, rest)}")


def _explain_number(line: bytes, at: int) -> NoReturn:
    number = NUMBER.match(line, at)
    if number and LONG_NUMBER.search(number.group()):
        raise RowError("R206", f"a number of {len(number.group()):,} digits at byte {at}")
    raise RowError("R205", f"{_head(line[at:])} at byte {at} overflows to infinity")


def _head(rest: bytes) -> str:
    return re.split(rb"[,}\]\s]", rest, maxsplit=1)[0][:24].decode(errors="replace")


def _hint(line: bytes, rest: bytes) -> str:
    """Return a hint on the usual cause of such a line."""
    stripped = line.lstrip()
    if b"\0" in line:
        return "; it contains NUL bytes, as files do after a crash"
    if stripped.startswith((b"{'", b"['")):
        return "; this is Python's repr, write it with json.dumps"
    if stripped.startswith((b"//", b"#")):
        return "; JSON has no comments"
    if rest.lstrip().startswith(b"{") and rest != line:
        return "; extra data: one object a line"
    return ""
