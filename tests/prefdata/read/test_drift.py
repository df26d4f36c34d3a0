"""PD105 points at the row where a file's columns change, however the file is split into chunks."""

import json
from functools import reduce
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prefdata
from prefdata.read.drift import Drift

Rows = list[frozenset[str]]
rows_of_columns = st.lists(st.frozensets(st.sampled_from("abc")), min_size=1, max_size=12)


def drift_of(rows: Rows, first: int) -> tuple[Drift, dict[str, int]]:
    found, known = Drift(), dict[str, int]()
    for line, columns in enumerate(rows, first):
        found.see(line, columns, known)
        known |= dict.fromkeys(columns, 1)
    return found, known


def joined(
    one: tuple[Drift, dict[str, int]], other: tuple[Drift, dict[str, int]]
) -> tuple[Drift, dict[str, int]]:
    return one[0].plus(other[0], one[1], other[1]), one[1] | other[1]


def by_hand(rows: Rows) -> dict[str, int]:
    """Return the first line whose having a column differs from the first row's."""
    changes = {}
    for name in "abc":
        lines = [at for at, columns in enumerate(rows, 1) if (name in columns) != (name in rows[0])]
        changes |= {name: lines[0]} if lines else {}
    return changes


@given(rows_of_columns, st.lists(st.integers(1, 12)))
def test_the_lines_do_not_depend_on_the_chunks(rows: Rows, cuts: list[int]) -> None:
    ends = sorted({0, *(cut for cut in cuts if cut < len(rows)), len(rows)})
    chunks = [drift_of(rows[a:b], a + 1) for a, b in pairwise(ends)]
    whole = reduce(joined, [(Drift(), {}), *chunks])[0]

    assert whole.lines == by_hand(rows) == drift_of(rows, 1)[0].lines


@pytest.mark.parametrize(("has", "line"), [({30}, 30), ({*range(1, 40)} - {30}, 30)])
def test_the_place_is_the_row_that_differs(tmp_path: Path, has: set[int], line: int) -> None:
    rows = [
        {"prompt": f"{n}?", "chosen": f"Yes, {n}.", "rejected": "No."}
        | ({"mood": "calm"} if n in has else {})
        for n in range(1, 40)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (finding,) = [f for f in prefdata.validate([str(file)]).findings if f.code == "PD105"]

    assert [example.line for example in finding.examples] == [line]
    assert "`mood` in" in finding.examples[0].message
    assert finding.unit == "row"
