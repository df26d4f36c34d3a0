"""Nulls that a table's types add to tool calls and tools: one struct has the keys of all rows.

    {"name": "weather", "arguments": {"city": "Rome"}}       as it was written
    {"name": "weather", "arguments": {"city": "Rome", "a": null, "b": null}}      as Arrow gives it

A table cannot say which of both was meant, and the second is trained as it stands. So nulls inside
of tool calls and tool definitions are left out, as TRL does. In JSON a null is what somebody wrote.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from prefdata.read.faults import RowError
from prefdata.read.files.chunks import Block, TableBlock
from prefdata.read.files.formats import read_rows
from prefdata.read.files.jsonl import Row, Tally
from prefdata.read.limits import Limits

TOOLS = frozenset({"tools", "tool_calls", "function_call", "functions", "tool_call"})
USES = ("tool_use", "tool_call", "function_call")  # types of content parts that call a tool


def plain_rows(block: Block, limits: Limits, tally: Tally) -> Iterator[Row]:
    """The rows of a block as they were before a table widened them."""
    rows = read_rows(block, limits, tally)
    if isinstance(block, TableBlock):
        return _without_nulls(rows, block.batch.schema, tally)
    return rows


def _without_nulls(rows: Iterator[Row], schema: pa.Schema, tally: Tally) -> Iterator[Row]:
    """The rows, less the nulls inside of tool calls and tools, which are counted."""
    names = [field.name for field in schema if _may_hold(field)]
    if not names:
        yield from rows
        return
    for line, offset, raw, value in rows:
        if not isinstance(value, RowError):
            for name in names:
                value[name], nulls = _strip(value.get(name), inside=name in TOOLS)
                tally.nulls += nulls
        yield line, offset, raw, value


def _may_hold(field: pa.Field, *, inside: bool = False) -> bool:
    """Whether a column has a struct in something that is named as tools or their calls are."""
    inside = inside or field.name in TOOLS or field.name in ("input", "arguments")
    if inside and pa.types.is_struct(field.type):
        return True
    inner = (field.type.field(number) for number in range(field.type.num_fields))
    return any(_may_hold(one, inside=inside) for one in inner)


def _strip(value: Any, *, inside: bool) -> tuple[Any, int]:
    """The value, less the nulls of its tool calls, and how many they were."""
    if type(value) is list:
        parts = [_strip(item, inside=inside) for item in value]
        return [part for part, _ in parts], sum(nulls for _, nulls in parts)
    if type(value) is not dict:
        return value, 0
    inside = inside or value.get("type") in USES
    kept: dict[str, Any] = {}
    total = 0
    for key, item in value.items():
        if inside and item is None:
            total += 1
            continue
        kept[key], nulls = _strip(item, inside=inside or key in TOOLS)
        total += nulls
    return kept, total
