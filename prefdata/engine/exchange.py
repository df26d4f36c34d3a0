"""Exchange of rows through files: runs sorted by a 64-bit key, of which a bucket is one range.

Each task of a stage writes its rows as a run. The next stage has a task for each bucket, which
reads the same range of keys from every run, so that all rows of a key meet in one process and none
holds more than a bucket. Bounded memory: the largest bucket, or the rows of one key.

    run of part 0:   3 5 | 8 9      Worked example: two runs, and buckets of the keys 0 to 6 and
    run of part 1:   5 6 | 7 9      7 to 9. The first bucket has the rows 3 5 5 6.

A run may have several lanes, one batch of its Arrow file each, with keys of their own.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.arrow import numbers_array, whole
from prefdata.hashing import Numbers

BUCKET_ROWS = 1 << 19
"""Rows of a bucket, about: a task holds some hundred bytes of each."""
FOLDER = "parts"
KEY = "key"
Rows = NDArray[np.int64]


class Bucket(NamedTuple):
    """Range of keys, both ends included."""

    first: int
    last: int


EVERYTHING = Bucket(0, 2**64 - 1)


def cut_buckets(num_rows: int, times: int = 1) -> list[Bucket]:
    """Return equal ranges of all keys, for buckets of about BUCKET_ROWS · `times` hashed keys."""
    number = max(1, -(-num_rows // most_rows(times)))
    edges = [(place << 64) // number for place in range(number + 1)]
    return [Bucket(first, after - 1) for first, after in pairwise(edges)]


def most_rows(times: int = 1) -> int:
    """Return the rows of a bucket that is as large as `times` others, about."""
    return BUCKET_ROWS * times


def cut_rows(num_rows: int) -> Iterator[Bucket]:
    """Yield ranges of BUCKET_ROWS rows, for runs whose keys are the indices of rows."""
    for first in range(0, num_rows, BUCKET_ROWS):
        yield Bucket(first, min(first + BUCKET_ROWS, num_rows) - 1)


def write_run(path: Path, *lanes: pl.DataFrame) -> None:
    """Write a run of lanes with the same columns; each is sorted by its KEY here.

    It is renamed when it is whole: a task that a cluster repeats may still run elsewhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid4().hex[:8]}.arrow")
    with pa.OSFile(str(temporary), "wb") as sink:
        _write_lanes(sink, lanes)
    temporary.replace(path)


def run_bytes(*lanes: pl.DataFrame) -> pa.Buffer:
    """Return the bytes of a run."""
    sink = pa.BufferOutputStream()
    _write_lanes(sink, lanes)
    return sink.getvalue()


def _write_lanes(sink: pa.NativeFile, lanes: Sequence[pl.DataFrame]) -> None:
    tables = [lane.sort(KEY, maintain_order=True).to_arrow() for lane in lanes]
    with pa.ipc.new_file(sink, tables[0].schema) as writer:
        for table in tables:
            columns = [whole(column) for column in table.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=table.schema))


def read_bucket(
    paths: Sequence[Path], bucket: Bucket, where: pl.Expr | None = None
) -> pl.DataFrame:
    """Return the rows of a bucket out of all runs of one lane, in the order of `paths`.

    Of each run only the rows for which `where` is true are kept: there may be few in a wide range.
    """
    frames: list[pl.DataFrame] = []
    for path in paths:
        frame = _read_range(path, bucket)
        if where is not None:
            frame = frame.filter(where)
        if len(frame) or not frames:
            frames.append(frame)
    return pl.concat(frames, rechunk=True)


class Lane(NamedTuple):
    """Rows of a bucket in one lane."""

    keys: Numbers
    rows: Rows


def read_lanes(paths: Sequence[Path], bucket: Bucket, lanes: range, starts: Rows) -> list[Lane]:
    """Return the rows of a bucket in some lanes of runs with only KEY and `row`, a place in a part.

    `starts` has the first row of each run's part: places become indices.
    """
    found: list[list[Lane]] = [[] for _ in lanes]
    for path, first in zip(paths, starts.tolist(), strict=True):
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            for own, lane in zip(found, lanes, strict=True):
                batch = _cut(reader.get_batch(lane), bucket)
                places = _numbers(batch.column("row"), np.uint32).astype(np.int64)
                own.append(Lane(_numbers(batch.column(KEY)).copy(), places + first))
    return [Lane(*map(np.concatenate, zip(*own, strict=True))) for own in found]


def _read_range(path: Path, bucket: Bucket) -> pl.DataFrame:
    """Return the rows of a range, copied, so that no more than one run is mapped at a time."""
    with pa.memory_map(str(path)) as source:
        batch = _cut(pa.ipc.open_file(source).get_batch(0), bucket)
        return _frame(batch.take(numbers_array(np.arange(len(batch), dtype=np.uint64))))


def _cut(batch: pa.RecordBatch, bucket: Bucket) -> pa.RecordBatch:
    keys = _numbers(batch.column(KEY))
    start = int(np.searchsorted(keys, np.uint64(bucket.first), side="left"))
    stop = int(np.searchsorted(keys, np.uint64(bucket.last), side="right"))
    return batch.slice(start, stop - start)


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches([batch]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def find_keys(path: Path, keys: Numbers) -> tuple[NDArray[np.bool_], pl.DataFrame]:
    """Return the mask of `keys` that a run of distinct keys has, and its rows for those."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        own = _numbers(batch.column(KEY))
        places = np.searchsorted(own, keys)
        known: NDArray[np.bool_] = np.zeros(len(keys), np.bool_)
        inside = places < len(own)
        known[inside] = own[places[inside]] == keys[inside]
        return known, _frame(batch.take(numbers_array(places[known])))


def _numbers(array: pa.Array, kind: Any = np.uint64) -> NDArray[Any]:
    """Return numbers without a copy; `to_numpy` of pyarrow imports pandas."""
    return np.frombuffer(array.buffers()[1] or b"", kind)[array.offset :][: len(array)]


class Parts(NamedTuple):
    """Parts of a build in order: their names, inputs, and how many rows they have."""

    root: Path
    names: tuple[str, ...]
    sources: NDArray[np.int32]
    """Index of each part's input."""
    ends: Rows
    """Rows of all parts up to the end of each. A row's index counts the rows of all parts."""

    @staticmethod
    def of(root: Path, parts: Sequence[tuple[str, int, int]]) -> "Parts":
        """Return parts by their names, the indices of their inputs, and their numbers of rows."""
        names, sources, sizes = ([part[n] for part in parts] for n in range(3))
        ends = np.cumsum(np.array(sizes, np.int64))
        return Parts(root, tuple(map(str, names)), np.array(sources, np.int32), ends)

    @property
    def num_rows(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def path_of(self, part: int, kind: str) -> Path:
        return part_path(self.root, self.names[part], kind)

    def paths(self, kind: str) -> list[Path]:
        """Return one file of every part."""
        return [self.path_of(part, kind) for part in range(len(self.names))]

    @property
    def starts(self) -> Rows:
        """Return the index of each part's first row."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    def start_of(self, part: int) -> int:
        return int(self.ends[part - 1]) if part else 0

    def size_of(self, part: int) -> int:
        return int(self.ends[part]) - self.start_of(part)

    def locate(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return the part of each row, and its place there."""
        part = np.searchsorted(self.ends, rows, side="right")
        return part, rows - self.starts[part]


def part_path(root: Path, name: str, kind: str) -> Path:
    return root / FOLDER / f"{name}.{kind}.arrow"


def write_parts(parts: Parts) -> None:
    """Write the list of parts, which tasks read from the disk: they need not bring it along."""
    frame = pl.DataFrame(
        {"name": list(parts.names), "source": parts.sources, "key": parts.ends.astype(np.uint64)},
        schema={"name": pl.String, "source": pl.Int32, KEY: pl.UInt64},
    )
    write_run(_list_path(parts.root), frame)


def read_parts(root: Path) -> Parts:
    """Return the list of parts that was written in a directory."""
    path = _list_path(root)
    seen = path.stat()
    return _read_parts(root, path, seen.st_ino, seen.st_mtime_ns)


@lru_cache(maxsize=2)
def _read_parts(root: Path, path: Path, *_: int) -> Parts:
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        ends = _numbers(batch.column(KEY)).astype(np.int64)
        sources = _numbers(batch.column("source"), np.int32).copy()
        return Parts(root, tuple(batch.column("name").to_pylist()), sources, ends)


def _list_path(root: Path) -> Path:
    return part_path(root, "00000", "list")
