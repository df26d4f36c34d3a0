"""Rows of a layout with arbitrary values in any field: each line is kept or refused."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdata.read import Limits, Pairing, expand_inputs, shipped_layouts
from tests.prefdata.read.rows import read_file

READABLE = [name for name, layout in shipped_layouts().items() if not layout.refuse]
VALUES: list[Any] = [None, "", "x", "[", "[1]", '{"a": 1}', 0, 1, -1.5, True, [], {}, [[]], [{}]]
VALUES += [["a", None], {"role": "user"}, [{"role": "user", "content": [1]}], [{"type": "text"}]]
VALUES += [[{"role": "tool_call", "content": "[1]"}, {"role": "tool", "content": "x"}], 2**60]
VALUES += [[{"role": "assistant", "content": [{"type": "tool_use", "value": "[1]"}]}]]


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every path in a value, outermost first."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path, *(p for key, item in items for p in places_in(item, (*path, key)))]


def changed(row: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    row = copy.copy(row)
    row[path[0]] = changed(row[path[0]], path[1:], value)
    return row


@st.composite
def damaged(draw: st.DrawFn, name: str) -> list[Any]:
    rows = copy.deepcopy(shipped_layouts()[name].fixture.rows * 2)
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(rows) - 1))
        path = draw(st.sampled_from(places_in(rows[number])))
        rows[number] = changed(rows[number], path, draw(st.sampled_from(VALUES)))
    return rows


@pytest.mark.parametrize("name", READABLE)
@settings(max_examples=12)
@given(data=st.data())
def test_no_line_of_a_damaged_file_is_lost(name: str, data: st.DataObject) -> None:
    rows = data.draw(damaged(name))
    strategy = data.draw(st.sampled_from(["best_vs_worst", "adjacent", "all", "best_vs_random"]))
    layout = shipped_layouts()[name]
    if layout.dimensions:
        layout = layout.by(data.draw(st.sampled_from(list(layout.dimensions))))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        (file,) = expand_inputs([str(path)])
        read = read_file(file, layout=layout, pairing=Pairing(strategy=strategy), limits=Limits())

    refused = read.rejected.to_pylist()
    lines = {*read.records["line"].to_pylist(), *read.members["member"].to_list()}
    assert lines | {row["line"] for row in refused} == set(range(1, len(rows) + 1))
    columns = [read.records[column].to_pylist() for column in ("line", "ordinal")]
    places = list(zip(*columns, strict=True))
    places += [(row["line"], row["ordinal"]) for row in refused]
    assert len(places) == len(set(places))
