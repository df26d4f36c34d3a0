"""Rejected pairs as rows of REJECTED: location, code, message, raw bytes, the pair as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from prefdata.arrow import arrow_array
from prefdata.records.schema import REJECTED

SIDES = ("chosen", "prompt", "rejected")  # sorted, as canonical JSON has it


def rejects_of(pairs: pa.Table, codes: Sequence[str], messages: Sequence[str]) -> pa.Table:
    """Return one row for each pair of a table of RECORDS, with its code and message, in order.

    Their bytes are null: `with_raw` fills them in.
    """
    json = [pair_json(pair).decode() for pair in pairs.select(SIDES).to_pylist()]
    own: dict[str, Sequence[Any]] = {
        "code": codes,
        "message": messages,
        "raw": [None] * len(json),
        "element": [None] * len(json),
        "pair": json,
    }
    columns = [
        arrow_array(own[field.name], field.type) if field.name in own else pairs[field.name]
        for field in REJECTED
    ]
    return pa.Table.from_arrays(columns, schema=REJECTED)


def lines_without_raw(rows: pa.Table) -> set[int]:
    """Return the lines of rows of REJECTED whose bytes are not known yet."""
    return set(rows.filter(rows["raw"].is_null())["line"].to_pylist())


def with_raw(rows: pa.Table, raw_of: Mapping[int, bytes]) -> pa.Table:
    """Return rows of REJECTED of one file with the bytes of their lines, where these are null."""
    raws = [
        raw_of.get(line) if raw is None else raw
        for line, raw in zip(rows["line"].to_pylist(), rows["raw"].to_pylist(), strict=True)
    ]
    place = REJECTED.get_field_index("raw")
    return rows.set_column(place, REJECTED.field("raw"), arrow_array(raws, pa.binary()))


def pair_json(pair: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Return a pair's canonical JSON, without the fields of messages that are null."""
    sides = {
        side: [{k: v for k, v in message.items() if v is not None} for message in pair[side]]
        for side in SIDES
    }
    return orjson.dumps(sides)
