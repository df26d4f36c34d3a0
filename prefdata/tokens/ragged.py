"""Rows of unequal length, stored as a flat array and offsets, as in Arrow lists.

Worked example: rows [7, 8], [], [9] are values [7, 8, 9] and offsets [0, 2, 2, 3].
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.arrow import numbers_array

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Ragged(NamedTuple):
    """Ragged rows: row n is `values[offsets[n]:offsets[n + 1]]`."""

    values: Int32s
    offsets: Int64s

    @property
    def lengths(self) -> Int64s:
        return np.diff(self.offsets)

    def row(self, number: int) -> Int32s:
        return self.values[self.offsets[number] : self.offsets[number + 1]]


def from_lengths(values: Int32s, lengths: Int64s) -> Ragged:
    """Return rows of these lengths, stored one after the other in `values`."""
    return Ragged(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def stack(parts: list[Ragged]) -> Ragged:
    """Return all rows of the first part, then all of the next."""
    values = np.concatenate([np.zeros(0, np.int32), *(part.values for part in parts)])
    lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
    return from_lengths(values, lengths)


def _positions(starts: Int64s, lengths: Int64s) -> Int64s:
    """Return every row's positions: starts [5, 9] and lengths [2, 1] give [5, 6, 9]."""
    ends: Int64s = np.cumsum(lengths)
    shifts: Int64s = np.repeat(starts - (ends - lengths), lengths)
    return shifts + np.arange(len(shifts))


def cut(rows: Ragged, starts: Int64s, stops: Int64s) -> Ragged:
    """Return each row's tokens from its start up to its stop."""
    lengths: Int64s = stops - starts
    return from_lengths(rows.values[_positions(rows.offsets[:-1] + starts, lengths)], lengths)


def take(rows: Ragged, index: Int64s) -> Ragged:
    """Return the rows at these indices, in this order."""
    lengths = rows.lengths[index]
    return from_lengths(rows.values[_positions(rows.offsets[:-1][index], lengths)], lengths)


def join(left: Ragged, right: Ragged) -> Ragged:
    """Return each row of `left` followed by the same row of `right`."""
    lengths = left.lengths + right.lengths
    joined = from_lengths(np.empty(int(lengths.sum()), np.int32), lengths)
    starts = joined.offsets[:-1]
    joined.values[_positions(starts, left.lengths)] = left.values
    joined.values[_positions(starts + left.lengths, right.lengths)] = right.values
    return joined


def common_prefix(left: Ragged, right: Ragged) -> Int64s:
    """Return the length of the common prefix of each row of `left` and the same row of `right`."""
    shorter = np.minimum(left.lengths, right.lengths)
    ends = np.cumsum(shorter)
    places = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - shorter, shorter)
    same = (
        left.values[_positions(left.offsets[:-1], shorter)]
        == right.values[_positions(right.offsets[:-1], shorter)]
    )
    differs = np.flatnonzero(~same)
    result = shorter.copy()
    np.minimum.at(result, np.repeat(np.arange(len(shorter)), shorter)[differs], places[differs])
    return result


def to_arrow(rows: Ragged, kind: pa.DataType) -> pa.Array:
    """Return an Arrow list array over the same memory."""
    if len(rows.values) > np.iinfo(np.int32).max:
        message = "a shard has more tokens than an Arrow list can hold; lower shard_rows"
        raise OverflowError(message)
    return pa.ListArray.from_arrays(
        numbers_array(rows.offsets.astype(np.int32)), numbers_array(rows.values), type=kind
    )
