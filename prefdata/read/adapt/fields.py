"""Fields of a raw row by path, and the codes of their faults."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from prefdata.read.faults import RowError
from prefdata.read.layouts.model import Kind

MISSING = object()
FIRST_ROUNDED = 2**53  # from here a float skips integers
DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
Getter = Callable[[Any], Any]
NumberReader = Callable[[str, Any], float | None]

TYPES: dict[Kind, tuple[type, ...]] = {
    "text": (str,),
    "hh": (str,),
    "messages": (list,),
    "turns": (list,),
    "turn": (dict,),
    "answer": (str, dict, list),
    "dialogue": (str, list),
    "question": (str, dict),
    "list": (list,),
    "number": (int, float),
    "answers": (list,),
    "bool": (bool,),
    "flag": (bool,),  # `require` also accepts the words and numbers of FLAGS
    "any": (object,),
    "filled": (object,),
}
FLAGS = {
    word: said
    for said, words in (
        (True, ("true", "1", "1.0", "yes", "y", "t")),
        (False, ("false", "0", "0.0", "no", "n", "f")),
    )
    for word in words
}
NAMES = {str: "text", list: "a list", dict: "an object", bool: "true or false"}


def getter(path: str) -> Getter:
    """Return a function that reads a dotted path of a row; it gives MISSING if a step is absent."""
    first, *rest = path.split(".")
    if not rest:
        return lambda row: row.get(first, MISSING) if type(row) is dict else MISSING

    def get(row: Any) -> Any:
        for step in (first, *rest):
            row = row.get(step, MISSING) if type(row) is dict else MISSING
        return row

    return get


def at_path(path: str, row: dict[str, Any]) -> Any:
    """Return the value at a path of a row, or MISSING."""
    return getter(path)(row) if "." in path else row.get(path, MISSING)


def column_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all columns, in order of first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in row))


def role_of(turn: Any) -> Any:
    """Return a message's role, as its `role` or `from` says; None for other values."""
    return turn.get("role", turn.get("from")) if type(turn) is dict else None


def require(path: str, value: Any, kind: Kind) -> Any:
    """Return the value; raise R211 if it is missing or null, R210 if its type is wrong."""
    if value is MISSING or value is None:
        state = "missing" if value is MISSING else "null"
        raise RowError("R211", f"`{path}` is {state}")
    if kind == "flag" and read_flag(value) is not None:
        return value
    if kind == "flag" and type(value) in (str, int, float):
        raise RowError("R210", f"`{path}` is {value!r:.40}, neither true nor false")
    if kind not in ("any", "filled") and type(value) not in TYPES[kind]:
        wanted = " or ".join(dict.fromkeys(NAMES.get(t, "a number") for t in TYPES[kind]))
        raise RowError("R210", f"`{path}` is {NAMES.get(type(value), 'a number')}, not {wanted}")
    return value


def read_flag(value: Any) -> bool | None:
    """Read true or false from a boolean, 0 or 1, or a word; return None for anything different.

    >>> read_flag("False"), read_flag(1), read_flag("1.0"), read_flag("maybe")
    (False, True, True, None)
    """
    if type(value) is str:
        return FLAGS.get(value.strip().lower())
    return bool(value) if type(value) in (bool, int, float) and value in (0, 1) else None


def optional(value: Any) -> Any:
    return None if value is MISSING else value


def optional_text(path: str, value: Any) -> str | None:
    """Return text, or None if it is absent; integers, such as numeric ids, become text."""
    if value is MISSING or value is None:
        return None
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise RowError("R210", f"`{path}` is {NAMES.get(type(value), 'a number')}, not text")


def optional_number(path: str, value: Any) -> float | None:
    """Return a finite number up to 2^53 as a float, or None if it is absent."""
    if value is MISSING or value is None:
        return None
    if type(value) is str and DECIMAL.fullmatch(value):
        value = float(value)
    if type(value) not in (int, float):
        raise RowError("R210", f"`{path}` is {NAMES.get(type(value), 'null')}, not a number")
    if not math.isfinite(value):
        raise RowError("R205", f"`{path}` is not a finite number")
    if abs(value) > FIRST_ROUNDED:
        raise RowError("R206", f"`{path}` is beyond 2^53, where digits are lost")
    return float(value)


def number_reader(missing: Collection[str]) -> NumberReader:
    """Return `optional_number`, changed so that these texts give None instead of a fault."""
    if not missing:
        return optional_number

    def read(path: str, value: Any) -> float | None:
        return None if type(value) is str and value in missing else optional_number(path, value)

    return read


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
