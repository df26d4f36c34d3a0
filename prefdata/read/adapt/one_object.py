"""Rows inside an object: around all of them, by columns, or one in each; named with the way out."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefdata.errors import UsageError
from prefdata.read.files.parse_json import Object

_SPLIT = ", orient='split'"
_PANDAS = "with pandas: read_json(FILE{}).to_json(OUT, orient='records', lines=True)"


def require_rows(rows: Sequence[Object], place: str) -> None:
    """Raise PD102 if what should be a row of a file has what look like its rows or columns."""
    if rows and all(isinstance(row.get("row"), dict) for row in rows):
        problem = "has each row as an object `row`, as the dataset viewer of the Hub gives them"
        raise UsageError("PD102", place, problem, "write them by themselves: jq -c '.rows[].row'")
    if len(rows) != 1:
        return
    problem, remedy = _around(rows[0])
    if problem:
        raise UsageError("PD102", place, problem, remedy)


def _around(row: Object) -> tuple[str, str]:
    """Return what an object is that a whole file consists of, and the remedy; empty if a row."""
    inside = next((key for key, value in row.items() if _is_rows(value)), None)
    if inside is not None:
        problem = f"is one object, whose `{inside}` is a list of {len(row[inside]):,} objects"
        remedy = f"if they are the rows, write them by themselves: jq -c '.[\"{inside}\"][]'"
        return problem, remedy
    if len(row) > 1 and all(key.isdecimal() and isinstance(row[key], dict) for key in row):
        problem = f"is one object of {len(row):,} rows by number"
        return problem, "write the rows by themselves: jq -c '.[]'"
    if {"columns", "data"} <= row.keys() and isinstance(row["data"], list):
        remedy = f"write one object a row, {_PANDAS.format(_SPLIT)}"
        return f"is one object of columns and {len(row['data']):,} lists of values", remedy
    sizes = {_size(value) for value in row.values()}
    if len(row) > 1 and len(sizes) == 1 and sizes != {0}:
        problem = f"is one object of columns, with {sizes.pop():,} values in each"
        return problem, f"write one object a row, {_PANDAS.format('')}"
    return "", ""


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _size(value: Any) -> int:
    """Return the number of values in a column; 0 if it is not one."""
    return len(value) if isinstance(value, Mapping | list) else 0
