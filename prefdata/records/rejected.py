"""Pairs that were refused, as rows of REJECTED: place, code, message, the pair itself as JSON."""

from collections.abc import Sequence

import orjson
import pyarrow as pa

from prefdata.arrow import arrow_array
from prefdata.records.schema import REJECTED

SIDES = ("chosen", "prompt", "rejected")  # sorted, as canonical JSON has it


def rejects_of(pairs: pa.Table, codes: Sequence[str], messages: Sequence[str]) -> pa.Table:
    """One row for each pair of a table of RECORDS; `codes` and `messages` in the same order."""
    sides = [pairs[side].to_pylist() for side in SIDES]
    raw = [
        orjson.dumps(
            {
                side: [{k: v for k, v in message.items() if v is not None} for message in turns]
                for side, turns in zip(SIDES, pair, strict=True)
            }
        )
        for pair in zip(*sides, strict=True)
    ]
    own = {"code": codes, "message": messages, "raw": raw}
    columns = [
        arrow_array(own[field.name], field.type) if field.name in own else pairs[field.name]
        for field in REJECTED
    ]
    return pa.Table.from_arrays(columns, schema=REJECTED)
