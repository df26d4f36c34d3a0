"""Nulls that a table's types add to tool calls and tools: a struct has the keys of all rows.

    {"name": "weather", "arguments": {"city": "Rome"}}       as it was written
    {"name": "weather", "arguments": {"city": "Rome", "a": null, "b": null}}      as Arrow gives it

A table cannot distinguish the two, and the second would be trained with its nulls. So nulls inside
tool calls and tool definitions are removed, as in TRL. In JSON a null is deliberate and kept.
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
    """Yield the rows of a block without the nulls that a table added."""
    rows = read_rows(block, limits, tally)
    if isinstance(block, TableBlock):
        return _without_nulls(rows, block.batch.schema, tally)
    return rows


def _without_nulls(rows: Iterator[Row], schema: pa.Schema, tally: Tally) -> Iterator[Row]:
    """Yield the rows without the nulls inside tool calls and tools; count the removed nulls."""
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
    """Return whether a column has a struct inside a field named like tools or tool calls."""
    inside = inside or field.name in TOOLS or field.name in ("input", "arguments")
    if inside and pa.types.is_struct(field.type):
        return True
    inner = (field.type.field(number) for number in range(field.type.num_fields))
    return any(_may_hold(one, inside=inside) for one in inner)


def _strip(value: Any, *, inside: bool) -> tuple[Any, int]:
    """Return the value without the nulls of its tool calls, and their number."""
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
