"""Shards that are opened when a row of them is needed, so memory does not grow with their number.

A shard is hashed at its first use, and the most recently used ones stay mapped. Before that its
lengths may be counted (`scan`): counts decide sizes of packs and what is checked, never a row.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.errors import PrefdataError

KEPT = 1024
"""Most shards of a split that stay mapped: 20 KB each of memory that is not the file's."""
THREADS = 8
"""Most threads that hash: they wait for the disk, and hashing releases the GIL."""

Opened = TypeVar("Opened", covariant=True)
Found = TypeVar("Found")
Rows = Sequence[int] | NDArray[np.int64]


class Source(Protocol):
    """A shard on disk or in memory."""

    @property
    def rows(self) -> int: ...

    def read(self) -> pa.Table:
        """Return its rows; raise a coded error unless they are as they were written."""

    def peek(self) -> pa.Table:
        """Return its rows without hashing them."""

    def check(self) -> None:
        """Raise a coded error unless it is as it was written."""


class TableShard(NamedTuple):
    """Rows in memory, as a shard."""

    table: pa.Table

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def read(self) -> pa.Table:
        return self.table

    def peek(self) -> pa.Table:
        return self.table

    def check(self) -> None:
        return


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, which is not copied if its file has one batch."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class Part(NamedTuple):
    """Rows of one shard among the rows of a request."""

    number: int
    """Index of the shard."""
    at: NDArray[np.int64]
    """Indices in the request."""
    places: NDArray[np.int64]
    """Indices in the shard."""


class Shards(Generic[Opened]):
    """Shards of one split in order, each opened by `make(table, first row)`."""

    def __init__(self, sources: Sequence[Source], make: Callable[[pa.Table, int], Opened]) -> None:
        self.sources = sources
        self.starts = np.cumsum([0, *(source.rows for source in sources)])
        self._make = make
        self._checked: set[int] = set()
        self.open = lru_cache(KEPT)(self._open)
        """Return a shard by its index, checked and mapped."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _open(self, number: int) -> Opened:
        return self._make(self.sources[number].read(), int(self.starts[number]))

    def locate(self, row: int) -> tuple[Opened, int]:
        """Return the shard of a row, and the row's index in it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.open(number), row - int(self.starts[number])

    def parts(self, rows: Rows) -> Iterator[Part]:
        """Yield rows, in any order, by shard."""
        wanted = np.asarray(rows, np.int64)
        numbers = np.searchsorted(self.starts, wanted, side="right") - 1
        for number in np.unique(numbers).tolist():
            at = np.flatnonzero(numbers == number)
            yield Part(number, at, wanted[at] - int(self.starts[number]))

    def check(self, rows: Rows | None = None) -> None:
        """Hash the shards of these rows, or all, that are new. Raises the error of a wrong one."""
        numbers = range(len(self.sources)) if rows is None else [p.number for p in self.parts(rows)]
        new = [number for number in numbers if number not in self._checked]
        if not new:
            return
        with ThreadPoolExecutor(min(len(new), THREADS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(lambda number: self.sources[number].check(), new):
                pass
        self._checked.update(new)

    def scan(self, function: Callable[[Opened], Found]) -> Iterator[Found]:
        """Yield a function of each shard, none of which is kept or hashed.

        A shard with which it fails is hashed, so that damage is reported as such.
        """
        for source, start in zip(self.sources, self.starts.tolist(), strict=False):
            try:
                found = function(self._make(source.peek(), start))
            except (PrefdataError, ValueError, OSError, pa.ArrowException):
                found = function(self._make(source.read(), start))
            yield found


class Column(Generic[Opened]):
    """Values by row, read from their shards when they are indexed: `column[rows]`."""

    def __init__(
        self,
        shards: Shards[Opened],
        read: Callable[[Opened, NDArray[np.int64]], NDArray[Any]],
        *,
        empty: NDArray[Any],
    ) -> None:
        self.shards, self._read, self._empty = shards, read, empty

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        """Return the values of rows, (rows, …), in their order."""
        found = np.empty((len(rows), *self._empty.shape[1:]), self._empty.dtype)
        for number, at, places in self.shards.parts(rows):
            found[at] = self._read(self.shards.open(number), places)
        return found

    def __array__(self, dtype: Any = None, **_: Any) -> NDArray[Any]:
        """Return the values of all rows."""
        return self[np.arange(len(self))].astype(dtype or self._empty.dtype)
