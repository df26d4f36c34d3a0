"""A JSON array is read element by element, as json.load reads it whole."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefdata.errors import UsageError
from prefdata.read import Limits, expand_inputs
from prefdata.read.faults import RowError
from prefdata.read.files.json_array import array_blocks, element_rows
from prefdata.read.files.jsonl import Row, Tally
from tests.effort import times
from tests.prefdata.read.rows import read_file

ENDS = ['"', "\\", "]", "}", "[", "{", ",", " ", "\n", "é", "😀", "a", "\\u0041", "/"]


def rows_of(data: bytes, size: int, limits: Limits | None = None) -> list[Row]:
    limits = limits or Limits()
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    blocks = array_blocks(chunks, "rows.json", limits, Tally())
    return [row for block in blocks for row in element_rows(block, limits, Tally())]


def draw_value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(6 if depth < 3 else 3)
    if kind == 0:
        return draw.choice([None, True, 0, -1.5])
    if kind < 3:
        return "".join(draw.choices(ENDS, k=draw.randrange(6)))
    if kind == 3:
        return [draw_value(draw, depth + 1) for _ in range(draw.randrange(3))]
    return {
        "".join(draw.choices(ENDS, k=2)) + str(n): draw_value(draw, depth + 1)
        for n in range(draw.randrange(3))
    }


def drawn(number: int) -> Iterator[tuple[list[Any], bytes]]:
    for seed in range(number):
        draw = random.Random(seed)
        value = [{"a": draw_value(draw)} for _ in range(draw.randrange(5))]
        indent = draw.choice([None, 0, 2])
        text = json.dumps(value, indent=indent, ensure_ascii=draw.random() < 0.5)
        yield value, draw.choice(["", " ", "\ufeff"]).encode() + text.encode() + b"\n" * (seed % 3)


@pytest.mark.stress
def test_elements_are_those_of_json_load_wherever_chunks_end() -> None:
    for value, data in drawn(times(60, 3000)):
        for size in (1, 3, len(data)):
            rows = rows_of(data, size)

            assert [row for *_, row in rows] == value
            assert [number for number, *_ in rows] == list(range(1, len(value) + 1))
            assert all(data[offset:].startswith(raw or b"?") for _, offset, raw, _ in rows)


@pytest.mark.stress
def test_a_cut_or_changed_array_is_an_error_or_what_json_load_gives() -> None:
    refused = 0
    for seed, (_, data) in enumerate(drawn(times(150, 5000))):
        draw = random.Random(seed)
        at = draw.randrange(data.index(b"[") + 1, len(data))
        changed = (
            data[:at]
            if draw.random() < 0.5
            else data[:at] + draw.choice([b"]", b"}", b"[", b",", b'"', b"\\", b" "]) + data[at:]
        )
        outcomes = set()
        for size in (1, 4, len(changed)):
            try:
                rows = rows_of(changed, size)
            except UsageError as error:
                outcomes.add(error.code)
                continue
            faults = [value for *_, value in rows if isinstance(value, RowError)]
            outcomes.add("refused" if faults else json.dumps([value for *_, value in rows]))
        assert len(outcomes) == 1, changed
        (outcome,) = outcomes
        if outcome in ("E105", "refused"):
            refused += 1
        else:
            assert json.loads(outcome) == json.loads(changed.decode("utf-8-sig"))
    assert refused > times(50, 2000)


def test_an_element_longer_than_the_limit_is_skipped() -> None:
    data = b'[{"a": 1}, {"a": "' + b'x\\"' * 5000 + b'"} , {"a": 2}]'

    for size in (1, 1000, len(data)):
        rows = rows_of(data, size, Limits(max_line_bytes=1000))

        codes = [value.code if isinstance(value, RowError) else value for *_, value in rows]
        assert codes == [{"a": 1}, "R212", {"a": 2}]
        assert data[rows[1][1] :].startswith(rows[1][2] or b"?")


def test_an_array_that_is_too_large_is_one_error() -> None:
    with pytest.raises(UsageError, match=r"\[E105\]$"):
        rows_of(b"[" + b"{}," * 1000 + b"{}]", 100, Limits(max_array_bytes=1000))


WRAPPED = [{"prompt": name, "chosen": "It is so.", "rejected": "No."} for name in "qp"]


@pytest.mark.parametrize(
    "text",
    [
        '{"data": ROWS}',
        '{"version": "1.0", "num": 2, "data": ROWS, "license": {"name": "mit"}}\n',
        '\ufeff{\n "rows": ROWS\n}\n',
        '{"examples":ROWS,"tags":[]}',
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_rows_inside_an_object_are_read_and_the_key_is_named(
    tmp_path: Path, text: str, indent: int | None
) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text.replace("ROWS", json.dumps(WRAPPED, indent=indent)))
    (opened,) = expand_inputs([str(file)])
    rows = read_file(opened)

    assert [row["prompt"][0]["content"] for row in rows.records.to_pylist()] == ["q", "p"]
    data = file.read_bytes()
    for offset in rows.records["offset"].to_pylist():
        assert data[offset : offset + 1] == b"{"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"train": ROWS, "test": ROWS}', "rows or lists in several keys of one object"),
        ('{"data": ROWS', "is not JSON, or other rows follow it"),
        ('{"data": ROWS}}', "is not JSON, or other rows follow it"),
        ('{\n"data": ROWS}\n{"data": ROWS}', "is not JSON, or other rows follow it"),
    ],
)
def test_an_object_that_is_not_only_rows_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text.replace("ROWS", json.dumps(WRAPPED)))
    (opened,) = expand_inputs([str(file)])

    with pytest.raises(UsageError, match=problem):
        read_file(opened)


def test_lines_that_each_hold_a_list_called_data_are_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"data": {json.dumps(WRAPPED)}}}\n' * 3)
    (opened,) = expand_inputs([str(file)])

    with pytest.raises(UsageError, match=r"no layout has the columns data.*\[PD102\]$"):
        read_file(opened)
