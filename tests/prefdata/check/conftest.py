"""Records out of plain Python, read by the layout of messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from prefdata.read import Limits, Pairing, expand_inputs, load_layout, read_file


@pytest.fixture
def records_of(tmp_path: Path) -> Callable[..., pa.Table]:
    """Each pair is {prompt, chosen, rejected, tools?}; a text stands for one turn."""

    def turns(side: Any, role: str) -> Any:
        return [{"role": role, "content": side}] if isinstance(side, str) else side

    def read(*pairs: dict[str, Any]) -> pa.Table:
        path = tmp_path / "pairs.jsonl"
        rows = [
            pair
            | {"prompt": turns(pair["prompt"], "user")}
            | {side: turns(pair[side], "assistant") for side in ("chosen", "rejected")}
            for pair in pairs
        ]
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
        (file,) = expand_inputs([str(path)])
        layout = load_layout("trl-conv-explicit")
        return read_file(file, layout=layout, pairing=Pairing(), limits=Limits()).records

    return read
