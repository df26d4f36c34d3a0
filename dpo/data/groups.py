"""Groups of pairs by their place: rows of one prompt are adjacent in a shard, so nothing is stored.

In a mixture, where a pair has several rows, each copy of a prompt's pairs is a group of its own:
rows a b c a b a of one prompt are the groups a b c, a b, a.
"""

from collections.abc import Sequence
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from dpo.data.shards import Shards

Ids = NDArray[np.uint64]
"""Ids of 16 bytes as two numbers each, (rows, 2)."""
BLOCK = 1024
"""Rows for which the index of groups stores one number."""


class HasIds(Protocol):
    """Ids of the prompts and pairs of a shard."""

    @property
    def group_ids(self) -> Ids: ...

    @property
    def pair_ids(self) -> Ids: ...


def run_starts(ids: Ids) -> NDArray[np.int64]:
    """Return the places at which runs of equal ids start."""
    is_new = np.ones(len(ids), np.bool_)
    is_new[1:] = (ids[1:] != ids[:-1]).any(1)
    return np.flatnonzero(is_new)


def find_run(ids: Ids, place: int) -> range:
    """Return the places of the run of equal ids around one."""
    start, stop, reach = place, place + 1, 8
    while start > 0:
        low = max(0, start - reach)
        differ = np.flatnonzero((ids[low:start] != ids[place]).any(1))
        start = low + int(differ[-1]) + 1 if len(differ) else low
        if len(differ):
            break
        reach *= 2
    reach = 8
    while stop < len(ids):
        high = min(len(ids), stop + reach)
        differ = np.flatnonzero((ids[stop:high] != ids[place]).any(1))
        stop = stop + int(differ[0]) if len(differ) else high
        if len(differ):
            break
        reach *= 2
    return range(start, stop)


def group_starts(group_ids: Ids, pair_ids: Ids) -> NDArray[np.int64]:
    """Return the places at which groups start, in rows of whole prompts."""
    starts = run_starts(group_ids)
    low = np.sort(pair_ids[:, 0])
    if not (low[1:] == low[:-1]).any():
        return starts
    prompts = np.zeros(len(group_ids), np.int64)
    prompts[starts[1:]] = 1
    prompts = np.cumsum(prompts)
    order = np.lexsort((pair_ids[:, 1], pair_ids[:, 0], prompts))  # stable: copies stay in order
    is_first = np.ones(len(order), np.bool_)
    same_pair = (pair_ids[order[1:]] == pair_ids[order[:-1]]).all(1)
    is_first[1:] = ~same_pair | (prompts[order[1:]] != prompts[order[:-1]])
    firsts = np.flatnonzero(is_first)
    copy = np.zeros(len(order), np.int64)
    copy[order] = np.arange(len(order)) - np.repeat(firsts, np.diff(np.append(firsts, len(order))))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (prompts[1:] != prompts[:-1]) | (copy[1:] != copy[:-1])
    return np.flatnonzero(is_new)


def find_group(shard: HasIds, place: int) -> range:
    """Return the places of the group of one."""
    run = find_run(shard.group_ids, place)
    if len(run) == 1:
        return run
    starts = run.start + group_starts(
        shard.group_ids[run.start : run.stop], shard.pair_ids[run.start : run.stop]
    )
    at = int(np.searchsorted(starts, place, side="right"))
    return range(int(starts[at - 1]), int(starts[at]) if at < len(starts) else run.stop)


class Groups(Sequence[range]):
    """Rows of each group of a split, by its number. One number for 1,024 rows is kept."""

    def __init__(self, shards: Shards[HasIds]) -> None:
        self._shards = shards
        self._before = list(shards.scan(_count_before))
        self._firsts = np.cumsum([0, *(int(counts[-1]) for counts in self._before)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @overload
    def __getitem__(self, number: int) -> range: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[range]: ...
    def __getitem__(self, number: int | slice) -> range | Sequence[range]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        at = int(np.searchsorted(self._firsts, number, side="right")) - 1
        shard, left = self._shards.open(at), number - int(self._firsts[at])
        block = int(np.searchsorted(self._before[at], left, side="right")) - 1
        left -= int(self._before[at][block])
        first = find_run(shard.group_ids, BLOCK * block).start
        stop = min(BLOCK * (block + 1), len(shard.group_ids))
        stop = find_run(shard.group_ids, stop - 1).stop
        starts = first + group_starts(shard.group_ids[first:stop], shard.pair_ids[first:stop])
        starts = np.append(starts, stop)
        left += int(np.searchsorted(starts, BLOCK * block))
        begin = int(self._shards.starts[at])
        return range(begin + int(starts[left]), begin + int(starts[left + 1]))


def _count_before(shard: HasIds) -> NDArray[np.int64]:
    """Return how many groups start before each block of a shard, and in all of it."""
    starts = group_starts(shard.group_ids, shard.pair_ids)
    ends = [*range(0, len(shard.group_ids), BLOCK), len(shard.group_ids)]
    return np.searchsorted(starts, ends)
