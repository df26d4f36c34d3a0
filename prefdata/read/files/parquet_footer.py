"""Checks of a Parquet footer that run before pyarrow's metadata objects, which can abort.

pyarrow checks a column's size statistics when Python reads its metadata. A fault there is an
uncaught C++ exception, which aborts the whole process (seen with pyarrow 26).
"""

import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prefdata.read.files.parquet_pages import Thrift

_TAIL = 8  # the footer's length, and PAR1
_ROW_GROUPS, _COLUMNS, _META_DATA, _SIZES = 4, 1, 3, 16
_TEXT_BYTES, _REPETITIONS, _DEFINITIONS = 1, 2, 3


def require_sound_sizes(path: Path, schema: pq.ParquetSchema) -> None:
    """Raise ValueError if a column's size statistics do not match its type or levels."""
    try:
        for group in _footer(path).get(_ROW_GROUPS, ()):
            for number, chunk in enumerate(group.get(_COLUMNS, ())):
                sizes = chunk.get(_META_DATA, {}).get(_SIZES)
                if sizes and number < len(schema):
                    _require_sound(sizes, schema.column(number))
    except (AttributeError, TypeError) as error:  # a field of the wrong type
        raise ValueError("its footer is broken") from error


def _require_sound(sizes: dict[int, Any], leaf: Any) -> None:
    levels = (
        (sizes.get(_REPETITIONS), leaf.max_repetition_level),
        (sizes.get(_DEFINITIONS), leaf.max_definition_level),
    )
    if any(counts and len(counts) != most + 1 for counts, most in levels):
        raise ValueError("its size statistics do not match their column's number of levels")
    if _TEXT_BYTES in sizes and leaf.physical_type != "BYTE_ARRAY":
        raise ValueError("its size statistics do not match their column's type")


def _footer(path: Path) -> dict[int, Any]:
    """Return the footer's fields by number; empty if only pyarrow can read it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
        if len(tail) < _TAIL or tail[4:] != b"PAR1":
            return {}
        (length,) = struct.unpack_from("<I", tail)
        if length + _TAIL > size:
            return {}
        file.seek(size - _TAIL - length)
        data = file.read(length)
    try:
        return Thrift(data).read_struct()
    except (IndexError, ValueError):
        return {}
