"""Kept pairs as readable rows, in the columns that every DPO trainer loads."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.arrow import arrow_array, numbers_array, whole
from prefdata.records.schema import RECORDS

FIELD_NAMES = [field.name for field in RECORDS.field("prompt").type.value_type]
"""Fields of messages, in the order of their columns."""
FORM_COLUMN = "prefdata_form"
ELEMENT_LINE = "element_line"
"""Column of text shards: line on which the element of a JSON array begins; `line` is its number."""
_SIDES = ("prompt", "chosen", "rejected")
_ALWAYS = ("role", "content")
_SHOWN = 600  # characters of a text that is shown
_LEFT_OUT = frozenset({"form", "offset", "source_index", "chosen_id", "rejected_id"})


class PlainPair(NamedTuple):
    """A pair as plain text, to show it."""

    line: int
    prompt: str
    chosen: str
    rejected: str


def first_pair(records: pa.Table) -> PlainPair | None:
    """Return the first of some records as plain text; None if there are none."""
    for row in records.slice(0, 1).select(["line", *_SIDES]).to_pylist():
        return PlainPair(row["line"], *(flat_text(row[side]) for side in _SIDES))
    return None


def flat_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Return turns as one text, cut to 600 characters; roles are named if there are several."""
    turns = [
        f"{turn['role']}: {turn['content']}" if len(messages) > 1 else turn["content"]
        for turn in messages
    ]
    text = "\n".join(turns)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def message_fields(records: pa.Table) -> tuple[str, ...]:
    """Return the message fields that any record uses; the others would be columns of nulls."""
    used = set(_ALWAYS)
    for side in _SIDES:
        for chunk in records[side].chunks:
            flat = chunk.flatten()
            used |= {f.name for f in flat.type if flat.field(f.name).null_count < len(flat)}
    return tuple(name for name in FIELD_NAMES if name in used)


def text_table(
    kept: pa.Table,
    fields: tuple[str, ...],
    *,
    has_verbatim: bool = False,
    begins: pl.DataFrame | None = None,
) -> pa.Table:
    """Return rows for a text shard: messages with these fields, or strings if `fields` is empty.

    `fields` is empty for verbatim text, which trainers expect as strings. A build with verbatim
    text has FORM_COLUMN in each row, so that it is read back unchanged. `begins` has the lines of
    elements by `source_index` and `line`, if an input is a JSON array.
    """
    columns = {}
    if has_verbatim:
        columns[FORM_COLUMN] = kept["form"]
    for name in RECORDS.names:
        if name in _LEFT_OUT:
            continue
        column = kept[name]
        if name in _SIDES:
            column = _narrow(column, fields) if fields else _verbatim(column)
        elif name in ("pair_id", "group_id"):
            column = arrow_array([value.hex() for value in column.to_pylist()], pa.string())
        columns[name] = column
        if name == "line" and begins is not None:
            keys = pl.DataFrame({key: pl.Series(kept[key]) for key in ("source_index", "line")})
            found = keys.join(begins, on=keys.columns, how="left", maintain_order="left")
            columns[ELEMENT_LINE] = arrow_array(found[ELEMENT_LINE].to_list(), pa.int64())
    return pa.table(columns).combine_chunks()


def _narrow(column: pa.ChunkedArray, fields: tuple[str, ...]) -> pa.Array:
    lists = whole(column)
    flat = lists.flatten()
    messages = pa.StructArray.from_arrays([flat.field(name) for name in fields], names=fields)
    ends = np.cumsum(pl.Series(pc.list_value_length(lists)), dtype=np.int32)
    offsets = numbers_array(np.concatenate([np.zeros(1, np.int32), ends]))
    return pa.ListArray.from_arrays(offsets, messages)


def _verbatim(column: pa.ChunkedArray) -> pa.Array:
    """Return the concatenated text of each list of messages."""
    turns = [[message["content"] for message in messages] for messages in column.to_pylist()]
    return arrow_array(["".join(contents) for contents in turns], pa.string())
