"""Sizes of an Arrow batch's rows as JSON, computed only from offsets.

Dictionaries and views are small in memory, but each of their rows may still be large.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from prefdata.read.limits import Limits

STEP_ROWS = 1024
MANY_VALUES = 2**20
VALUE_BYTES = 4
"""Bytes of the shortest JSON value, with its comma."""
NUMBER_BYTES = 12

Sizes = NDArray[np.int64] | int
"""Bytes of each row, or one number if all rows have the same size."""


class Span(NamedTuple):
    """Consecutive rows and their sizes in bytes."""

    start: int
    sizes: NDArray[np.int64]


def spans(batch: pa.RecordBatch, limits: Limits) -> Iterator[Span]:
    """Yield the sizes of all rows in steps; memory does not depend on the claimed sizes."""
    rows = batch.to_struct_array()
    for first in range(0, len(rows), STEP_ROWS):
        parts = [(first, min(STEP_ROWS, len(rows) - first))]
        while parts:
            start, count = parts.pop()
            part = rows.slice(start, count)
            values = most_values(part)
            if values <= MANY_VALUES or (
                count == 1 and values * VALUE_BYTES <= limits.max_line_bytes
            ):
                sizes = row_sizes(part)
                yield Span(start, np.broadcast_to(np.asarray(sizes, np.int64), count))
            elif count == 1:
                yield Span(start, np.array([values * VALUE_BYTES], np.int64))
            else:
                half = count // 2
                parts += [(start + half, count - half), (start, half)]


def least_bytes(schema: pa.Schema) -> int:
    """Return the size of a row of nulls, so that a claimed number of rows has a minimum size."""
    return 2 + sum(len(name) + VALUE_BYTES for name in schema.names)


def most_values(array: pa.Array) -> int:
    """Return the length of the longest array nested in an array."""
    array = _storage(array)
    if types.is_struct(array.type):
        parts = [array.field(number) for number in range(array.type.num_fields)]
        return max((most_values(part) for part in parts), default=0)
    if not len(array) or not _is_list(array.type):
        return 0
    child, _ = _children(array)
    return max(len(child), most_values(child))


def row_sizes(array: pa.Array) -> Sizes:
    """Return the size of each value, or one number if all have the same size."""
    array = _storage(array)
    if types.is_null(array.type) or not len(array):
        return VALUE_BYTES
    if types.is_dictionary(array.type):
        return _dictionary_sizes(array)
    if types.is_struct(array.type):
        total: Sizes = 2
        for number, field in enumerate(array.type):
            total = total + len(field.name) + VALUE_BYTES + row_sizes(array.field(number))
        return total
    return _list_sizes(array) if _is_list(array.type) else _flat_sizes(array)


def _dictionary_sizes(array: pa.DictionaryArray) -> Sizes:
    sizes = row_sizes(array.dictionary)
    if isinstance(sizes, int):
        return sizes
    places = array.indices.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return sizes[places] if len(sizes) else VALUE_BYTES


def _list_sizes(array: pa.Array) -> Sizes:
    child, ends = _children(array)
    inner = row_sizes(child)
    if isinstance(inner, int):
        return np.diff(ends) * inner + 2
    return np.diff(np.concatenate([[0], np.cumsum(inner)])[ends]) + 2


def _flat_sizes(array: pa.Array) -> Sizes:
    kind = array.type
    if types.is_fixed_size_binary(kind):
        return int(kind.byte_width) + VALUE_BYTES
    if types.is_string_view(kind) or types.is_binary_view(kind):
        views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)
        lengths = views[array.offset : array.offset + len(array), 0]
        there = array.is_valid().to_numpy(zero_copy_only=False)
        return np.where(there, lengths, 0).astype(np.int64) + VALUE_BYTES
    if types.is_binary(kind) or types.is_string(kind):
        return np.diff(_offsets(array, np.int32)) + VALUE_BYTES
    if types.is_large_binary(kind) or types.is_large_string(kind):
        return np.diff(_offsets(array, np.int64)) + VALUE_BYTES
    return NUMBER_BYTES


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_map(kind)
        or types.is_fixed_size_list(kind)
    )


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _children(array: Any) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the values of lists and their offsets: each list's start, and the last end."""
    if types.is_fixed_size_list(array.type):
        size = array.type.list_size
        ends = np.arange(len(array) + 1, dtype=np.int64) * size
        return array.values.slice(array.offset * size, len(array) * size), ends
    wide = types.is_large_list(array.type)
    offsets = _offsets(array, np.int64 if wide else np.int32)
    first, last = int(offsets[0]), int(offsets[-1])
    values = array.items if types.is_map(array.type) else array.values
    if types.is_map(array.type):
        fields = [pa.field("key", array.type.key_type), pa.field("value", array.type.item_type)]
        values = pa.StructArray.from_arrays([array.keys, array.items], fields=fields)
    return values.slice(first, last - first), offsets - first


def _offsets(array: pa.Array, kind: type[np.signedinteger[Any]]) -> NDArray[np.int64]:
    buffer = array.buffers()[1]
    every = np.frombuffer(buffer, kind)[array.offset : array.offset + len(array) + 1]
    return every.astype(np.int64)
