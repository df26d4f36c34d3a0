"""Rejected pairs as rows of REJECTED: location, code, message, and the pair as JSON."""

from collections.abc import Sequence

import orjson
import pyarrow as pa

from prefdata.arrow import arrow_array
from prefdata.records.schema import REJECTED

SIDES = ("chosen", "prompt", "rejected")  # sorted, as canonical JSON has it


def rejects_of(pairs: pa.Table, codes: Sequence[str], messages: Sequence[str]) -> pa.Table:
    """Return one row for each pair of a table of RECORDS, with its code and message, in order."""
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
