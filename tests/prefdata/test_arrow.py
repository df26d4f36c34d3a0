"""Ragged rows behave as lists of lists."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prefdata.arrow import common_prefix, cut, from_lengths, join, take

ragged = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=6)


def to_ragged(rows: list[list[int]]) -> Any:
    values = np.array([v for row in rows for v in row], np.int32)
    return from_lengths(values, np.array([len(row) for row in rows], np.int64))


@given(ragged, ragged, st.data())
def test_ragged_rows_behave_as_lists_do(
    left: list[list[int]], right: list[list[int]], data: st.DataObject
) -> None:
    number = min(len(left), len(right))
    a, b = left[:number], right[:number]
    index = data.draw(st.lists(st.integers(0, number - 1), max_size=5))
    stops = [data.draw(st.integers(0, len(row))) for row in a]
    x, y = to_ragged(a), to_ragged(b)

    def rows(table: Any) -> list[list[int]]:
        return [table.row(n).tolist() for n in range(len(table.lengths))]

    assert rows(join(x, y)) == [p + q for p, q in zip(a, b, strict=True)]
    assert rows(take(x, np.array(index, np.int64))) == [a[n] for n in index]
    assert rows(cut(x, np.zeros(number, np.int64), np.array(stops))) == [
        row[:stop] for row, stop in zip(a, stops, strict=True)
    ]
    prefix = [
        next((n for n, (p, q) in enumerate(zip(r, s, strict=False)) if p != q), min(len(r), len(s)))
        for r, s in zip(a, b, strict=True)
    ]
    assert common_prefix(x, y).tolist() == prefix
