"""MinHash sketches of texts: sets of shingles, and keys that propose pairs of near-duplicates.

Two texts are proposed if any of their keys is equal. A key combines ROWS minima under as many
hash functions, so texts of similarity s agree in it with probability s^ROWS, and in any of b keys
with 1 - (1 - s^ROWS)^b: https://doi.org/10.1109/SEQUEN.1997.666900, and bands as in chapter 3 of
http://www.mmds.org.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.arrow import Ragged, numbers_array, stack, whole
from prefdata.dedup.near.shingles import shingle_blocks
from prefdata.hashing import Numbers, mix

# Few rows propose more pairs and need fewer minima. The exact test of a pair costs about as much as
# a hundred minima; with 4 rows, one in 600 pairs of texts of similarity 0.1 is proposed.
ROWS = 4
LANES = 8
_MOST_MAPPED = 16  # sketches of parts
_PARITY_SETS = 128  # sets per block, so that their counters stay in a core's cache


class SketchOptions(NamedTuple):
    """Options of a sketch; only sketches with equal options can be compared."""

    num_words: int = 5
    """Words per shingle."""
    threshold: float = 0.7
    """Lowest Jaccard similarity of two near-duplicates."""
    recall: float = 0.99
    """Chance that a pair exactly at the threshold is proposed; above it, the chance is higher."""

    @property
    def num_bands(self) -> int:
        """Return the smallest number of keys with that recall.

        >>> SketchOptions(threshold=0.7, recall=0.99).num_bands
        17
        """
        missed = 1 - self.threshold**ROWS
        return math.ceil(math.log(1 - self.recall) / math.log(missed)) if missed else 1


class Sketch(NamedTuple):
    """Sets of shingles and keys of texts."""

    sets: Ragged
    """Shingles of each text, sorted and distinct."""
    keys: Sequence[Numbers]
    """(1 + bands, texts): the first is a key of the whole set, equal for equal sets."""
    parity: Sequence[Numbers]
    """(LANES, texts), 64 bits each: 1 if an odd number of shingles map to the bit."""


def make_sketch(texts: pl.Series, options: SketchOptions = SketchOptions()) -> Sketch:  # noqa: B008
    """Sketch texts without nulls; each text's sketch depends only on that text."""
    factors = _factors(options.num_bands)
    made = [
        (sets, _keys(sets, factors), _parity(sets))
        for sets in shingle_blocks(texts, num_words=options.num_words)
    ]
    return Sketch(
        stack([sets for sets, _, _ in made], np.uint64),
        list(_side_by_side([keys for _, keys, _ in made], 1 + len(factors))),
        list(_side_by_side([parity for _, _, parity in made], LANES)),
    )


def _side_by_side(blocks: list[Numbers], height: int) -> Numbers:
    return np.concatenate([np.zeros((height, 0), np.uint64), *blocks], axis=1)


def _factors(num_bands: int) -> NDArray[np.uint32]:
    """Return odd factors, (bands, ROWS): shingle · factor modulo 2³² is its hash."""
    drawn = mix(np.arange(1, num_bands * ROWS + 1, dtype=np.uint64) << np.uint64(32))
    return ((drawn >> np.uint64(32)).astype(np.uint32) | np.uint32(1)).reshape(num_bands, ROWS)


def _keys(sets: Ragged, factors: NDArray[np.uint32]) -> Numbers:
    """Return the keys of one block, (1 + bands, sets); zeros for empty sets."""
    sizes = sets.lengths
    keys = np.zeros((1 + len(factors), len(sizes)), np.uint64)
    filled = np.flatnonzero(sizes)
    if not len(filled):
        return keys
    starts = sets.offsets[filled]
    keys[0, filled] = np.add.reduceat(mix(sets.values), starts)
    narrow = sets.values.astype(np.uint32)
    hashed = np.empty_like(narrow)
    minima = np.empty((*factors.shape, len(filled)), np.uint64)
    for place in np.ndindex(factors.shape):
        np.multiply(narrow, factors[place], out=hashed)
        minima[place] = np.minimum.reduceat(hashed, starts)
    for row in range(ROWS):
        keys[1:, filled] = mix(keys[1:, filled] + minima[:, row])
    return keys


def _parity(sets: Ragged) -> Numbers:
    """Return the parity lanes of one block: shingle modulo 64 · LANES is its bit."""
    num_bits = 64 * LANES
    bits = (sets.values & np.uint64(num_bits - 1)).astype(np.int64)
    sizes, packed = sets.lengths, []
    for start in range(0, len(sizes), _PARITY_SETS):
        some = sizes[start : start + _PARITY_SETS]
        first = np.repeat(np.arange(len(some)) * num_bits, some)
        mine = bits[sets.offsets[start] : sets.offsets[start + len(some)]]
        counts = np.bincount(first + mine, minlength=len(some) * num_bits)
        packed.append(np.packbits(counts.astype(np.uint8) & 1, bitorder="little"))
    lanes = np.concatenate([np.zeros(0, np.uint8), *packed]).view("<u8")
    return lanes.astype(np.uint64, copy=False).reshape(len(sizes), LANES).T


def sketch_table(sketch: Sketch) -> pa.Table:
    """Convert a sketch to a table with one row per text, for writing."""
    shingles = pa.LargeListArray.from_arrays(
        numbers_array(sketch.sets.offsets), numbers_array(sketch.sets.values)
    )
    columns = {"shingles": shingles}
    for name in ("parity", "keys"):
        for number, lane in enumerate(getattr(sketch, name)):
            columns[f"{name}_{number:03d}"] = numbers_array(np.ascontiguousarray(lane))
    return pa.table(columns)


class StoredSketches(Sequence[Sketch]):
    """Sketches in files, mapped when they are needed; only the last few stay mapped.

    While mapped, the pages that were read count as memory of the process.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: dict[int, Sketch] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: Any) -> Any:
        if number not in self._open:
            if len(self._open) == _MOST_MAPPED:
                self._open.clear()
            self._open[number] = open_sketch(self._paths[number])
        return self._open[number]


def open_sketch(path: Path) -> Sketch:
    """Open a written sketch; its arrays are memory-mapped."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    lists, *numbers = map(_mapped, table.columns)
    keys = [_numbers(column) for column in numbers]
    return Sketch(
        Ragged(_numbers(lists.values), _numbers(lists.offsets).view(np.int64)),
        keys[LANES:],
        keys[:LANES],
    )


def _mapped(column: pa.ChunkedArray) -> pa.Array:
    """Return the column without a copy; `whole` would copy it into memory."""
    return column.chunk(0) if column.num_chunks == 1 else whole(column)


def _numbers(array: pa.Array) -> Numbers:
    return np.frombuffer(array.buffers()[1] or b"", np.uint64)[array.offset :][: len(array)]
