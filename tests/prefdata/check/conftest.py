"""Records from plain Python, read with the layout of messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from prefdata.arrow import arrow_array
from prefdata.read import expand_inputs, load_layout
from prefdata.records.schema import RECORDS
from tests.prefdata.read.rows import read_file

# Columns that the layout does not read; a pair may also give them.
FACTS = (
    *("score_chosen", "score_rejected", "margin", "chosen_rank", "rejected_rank"),
    *("model_chosen", "model_rejected", "meta"),
)


@pytest.fixture
def records_of(tmp_path: Path) -> Callable[..., pa.Table]:
    """Read pairs of {prompt, chosen, rejected, tools?} and FACTS; a string is one turn."""

    def turns(side: Any, role: str) -> Any:
        return [{"role": role, "content": side}] if isinstance(side, str) else side

    def read(*pairs: dict[str, Any]) -> pa.Table:
        path = tmp_path / "pairs.jsonl"
        rows = [
            {name: value for name, value in pair.items() if name not in FACTS}
            | {"prompt": turns(pair["prompt"], "user")}
            | {side: turns(pair[side], "assistant") for side in ("chosen", "rejected")}
            for pair in pairs
        ]
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
        (file,) = expand_inputs([str(path)])
        layout = load_layout("trl-conv-explicit")
        records = read_file(
            file,
            layout=layout,
        ).records
        for name in FACTS:
            values = [pair.get(name, "{}" if name == "meta" else None) for pair in pairs]
            field = RECORDS.field(name)
            place = RECORDS.get_field_index(name)
            records = records.set_column(place, field, arrow_array(values, field.type))
        return records

    return read
