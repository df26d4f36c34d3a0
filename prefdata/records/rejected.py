"""Rejected pairs as rows of REJECTED: location, code, message, and the pair as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from prefdata.arrow import arrow_array
from prefdata.records.schema import REJECTED

SIDES = ("chosen", "prompt", "rejected")  # sorted, as canonical JSON has it


def rejects_of(pairs: pa.Table, codes: Sequence[str], messages: Sequence[str]) -> pa.Table:
    """Return one row for each pair of a table of RECORDS, with its code and message, in order."""
    raw = [pair_json(pair) for pair in pairs.select(SIDES).to_pylist()]
    own = {"code": codes, "message": messages, "raw": raw}
    columns = [
        arrow_array(own[field.name], field.type) if field.name in own else pairs[field.name]
        for field in REJECTED
    ]
    return pa.Table.from_arrays(columns, schema=REJECTED)


def pair_json(pair: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Return a pair's canonical JSON, without the fields of messages that are null."""
    sides = {
        side: [{k: v for k, v in message.items() if v is not None} for message in pair[side]]
        for side in SIDES
    }
    return orjson.dumps(sides)
