"""Pairs of each step, and their weights in it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpo.config import TrainConfig
from dpo.data.packing import bin_pack
from dpo.data.pairs import Pairs
from dpo.data.permutation import step_pairs

WINDOW = 256
"""Groups that are packed together: enough to fill packs, few enough to plan in one pass."""


class Order(NamedTuple):
    """Order of units over steps: unit u, a pair or a group, is rows [starts[u], starts[u + 1])."""

    starts: NDArray[np.int64]
    shares: NDArray[np.float32] | None
    """Share of each row in its group, (rows,); None unless the loss is averaged over groups."""
    seed: int
    batch: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def step(self, step: int) -> list[list[int]]:
        """Return the units of a step, counted from 1, each as its rows."""
        units = step_pairs(len(self), seed=self.seed, step=step, batch=self.batch)
        return [list(range(self.starts[unit], self.starts[unit + 1])) for unit in units]

    def rows(self, step: int) -> list[int]:
        """Return the rows of a step."""
        return [row for unit in self.step(step) for row in unit]

    def num_pairs(self, steps: int) -> int:
        """Return the number of pairs of the first `steps` steps."""
        if int(self.starts[-1]) == len(self):
            return steps * self.batch
        return sum(len(self.rows(step)) for step in range(1, steps + 1))

    def weights(self, rows: list[int], num_pairs: int) -> NDArray[np.float32]:
        """Return the weights of rows in a step of `num_pairs`; over the step they sum to it."""
        if self.shares is None:
            return np.ones(len(rows), np.float32)
        return self.shares[rows] * np.float32(num_pairs / self.batch)


def make_order(pairs: Pairs, config: TrainConfig) -> Order:
    """Return the order that a config describes."""
    starts = group_starts(pairs) if config.batch_unit == "groups" else np.arange(len(pairs) + 1)
    shares = None
    if config.average_over == "groups":
        shares = (1 / pairs.group_sizes[pairs.groups]).astype(np.float32)
    return Order(starts, shares, config.seed, config.global_batch_size)


def group_starts(pairs: Pairs) -> NDArray[np.int64]:
    """Return the first row of each group, and the number of rows, (groups + 1,)."""
    return np.concatenate([[0], np.cumsum(pairs.group_sizes)]).astype(np.int64)


def packs_in_order(
    pairs: Pairs, count: int, *, budget: int, ranks: int = 1
) -> Iterator[list[list[list[int]]]]:
    """Yield the first `count` rows in order: windows of groups, packed for each rank.

    Every rank has the same number of packs, possibly empty ones, so that collectives match.
    """
    starts = np.minimum(group_starts(pairs), count)
    units = [list(range(*bounds)) for bounds in pairwise(starts.tolist()) if bounds[0] < count]
    for first in range(0, len(units), WINDOW):
        window = units[first : first + WINDOW]
        sizes = [pairs.num_tokens(unit) for unit in window]
        shares = bin_pack(sizes, budget=budget, ranks=ranks)
        most = max(map(len, shares))
        yield [
            [[row for place in places for row in window[place]] for places in share]
            + [[]] * (most - len(share))
            for share in shares
        ]
