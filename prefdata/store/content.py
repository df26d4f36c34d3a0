"""Content hash: identifies what a build trains, independent of how it was written.

Two builds have the same hash if every split has the same rows in the same order: ids, tokens,
masks, weights, margins and ranks, made by the same tokenizer. Paths, shard boundaries, compression
and library versions do not count. Each column of a split is hashed as streams of little-endian
numbers: one of its values, one of list lengths, and one of null flags.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.store.canonical import hash_json
from prefdata.store.shards import TOKENS

_VERSION = 1
_KINDS = {pa.uint8(): "u1", pa.int16(): "<i2", pa.int32(): "<i4", pa.float32(): "<f4"}


class _Sink(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def hash_content(shards: Iterable[tuple[str, pa.Table]], *, tokenizer_sha256: str) -> str:
    """Return the content hash, sha256 in hex, of the `TOKENS` of shards, each with its split."""
    splits: dict[str, _SplitHash] = {}
    for split, table in shards:
        splits.setdefault(split, _SplitHash()).update(table)
    return hash_json(
        {
            "version": _VERSION,
            "tokenizer_sha256": tokenizer_sha256,
            "splits": {split: hashed.digests() for split, hashed in splits.items()},
        }
    )


class _SplitHash:
    """Hashes of the streams of a split, fed shard by shard."""

    def __init__(self) -> None:
        self._rows = 0
        self._streams = {
            f"{name}.{part}": hashlib.sha256() for name in TOKENS.names for part in _parts(name)
        }

    def update(self, table: pa.Table) -> None:
        self._rows += table.num_rows
        for name in TOKENS.names:
            sinks = {part: self._streams[f"{name}.{part}"] for part in _parts(name)}
            for chunk in table[name].chunks:
                _feed(chunk, sinks)

    def digests(self) -> dict[str, str]:
        """Return the number of rows, and the digests by column and stream."""
        digests = {name: stream.hexdigest() for name, stream in self._streams.items()}
        return {"rows": str(self._rows)} | digests


def _parts(name: str) -> tuple[str, ...]:
    """Return the names of a column's streams."""
    field = TOKENS.field(name)
    lengths = ("lengths",) if pa.types.is_list(field.type) else ()
    return (*lengths, "values", *(("nulls",) if field.nullable else ()))


def _feed(array: pa.Array, sinks: Mapping[str, _Sink]) -> None:
    if "nulls" in sinks:
        sinks["nulls"].update(_bytes_of(array.is_null().cast(pa.uint8()), "u1"))
    if "lengths" in sinks:
        sinks["lengths"].update(_bytes_of(pc.list_value_length(array), "<i4"))
        array = array.flatten()
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        start = array.offset * width
        sinks["values"].update(memoryview(array.buffers()[1])[start : start + len(array) * width])
        return
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    sinks["values"].update(_bytes_of(array, _KINDS[array.type]))


def _bytes_of(array: pa.Array, kind: str) -> memoryview:
    """Return numbers as bytes, 0 for each null."""
    numbers = pl.Series(array).fill_null(0).to_numpy()
    return np.ascontiguousarray(numbers, dtype=kind).data.cast("B")
