"""Pairs of each step, and their weights in it: a pure function of (number of pairs, seed, step).

Position p of a run is pair `order(p mod N)` of epoch `p div N`. The order is a keyed permutation,
a Feistel network over the smallest even-width domain that holds N, walked until it lands inside.
Nothing is stored: any position of any epoch is computed independently, so a run resumes anywhere
without a list of a billion indices.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpo.config import TrainConfig
from dpo.data.groups import Groups
from dpo.data.packing import bin_pack
from dpo.data.pairs import Pairs, TokenShard
from dpo.data.shards import Column
from dpo.errors import UsageError
from prefdata.hashing import mix

WINDOW = 256
"""Groups that are packed together: enough to fill packs, few enough to plan in one pass."""
ROUNDS = 6


class Order(NamedTuple):
    """Order of units over steps: a unit is a pair or a group."""

    units: Sequence[range]
    """Rows of each unit."""
    num_rows: int
    shares: Column[TokenShard] | None
    """Share of each row in its group, (rows,); None unless the loss is averaged over groups."""
    seed: int
    batch: int

    def __len__(self) -> int:
        return len(self.units)

    def step(self, step: int) -> list[list[int]]:
        """Return the units of a step, counted from 1, each as its rows."""
        units = step_pairs(len(self), seed=self.seed, step=step, batch=self.batch)
        return [list(self.units[unit]) for unit in units.tolist()]

    def rows(self, step: int) -> list[int]:
        """Return the rows of a step."""
        return [row for unit in self.step(step) for row in unit]

    def num_pairs(self, steps: int) -> int:
        """Return the number of pairs of the first `steps` steps."""
        if self.num_rows == len(self):
            return steps * self.batch
        epochs, left = divmod(steps * self.batch, len(self))
        last = permute(np.arange(left), len(self), key=f"{self.seed}/{epochs}")
        return epochs * self.num_rows + sum(
            len(self.units[unit]) for unit in np.sort(last).tolist()
        )

    def weights(self, rows: list[int], num_pairs: int) -> NDArray[np.float32]:
        """Return the weights of rows in a step of `num_pairs`; over the step they sum to it."""
        if self.shares is None:
            return np.ones(len(rows), np.float32)
        return self.shares[rows] * np.float32(num_pairs / self.batch)


class Alone(Sequence[range]):
    """Units of one row each."""

    def __init__(self, num_rows: int) -> None:
        self._rows = range(num_rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, unit: Any) -> Any:
        row = self._rows[unit]
        return range(row, row + 1)


def make_order(pairs: Pairs, config: TrainConfig) -> Order:
    """Return the order that a config describes."""
    by_group = config.batch_unit == "groups"
    units: Sequence[range] = Groups(pairs.shards) if by_group else Alone(len(pairs))
    shares = pairs.shares if config.average_over == "groups" else None
    return Order(units, len(pairs), shares, config.seed, config.global_batch_size)


def num_steps(config: TrainConfig, num_units: int) -> int:
    """Return the optimizer steps of a run: `steps`, or the whole steps in its epochs."""
    if config.steps is not None:
        return config.steps
    steps = int((config.epochs or 1) * num_units) // config.global_batch_size
    if steps == 0:
        unit = config.batch_unit
        problem = f"{num_units:,} {unit} do not fill one step of {config.global_batch_size:,}"
        raise UsageError("T125", str(config.data), problem, "lower global_batch_size, or set steps")
    return steps


def pack_units(
    pairs: Pairs, units: Sequence[list[int]], *, budget: int, ranks: int = 1
) -> list[list[list[int]]]:
    """Return rows by rank and pack; a unit, such as a group, is never split across packs.

    Every rank has the same number of packs, possibly empty ones, so that collectives match.
    """
    pairs.shards.check([row for unit in units for row in unit])
    sizes = [pairs.num_tokens(unit) for unit in units]
    shares = bin_pack(sizes, budget=budget, ranks=ranks)
    most = max(map(len, shares))
    return [
        [[row for place in places for row in units[place]] for places in share]
        + [[]] * (most - len(share))
        for share in shares
    ]


def packs_in_order(
    pairs: Pairs, count: int, *, budget: int, ranks: int = 1, first: int = 0
) -> Iterator[list[list[list[int]]]]:
    """Yield rows [first, count) in order: windows of whole prompts, as `pack_units` packs them."""
    prompts = takewhile(lambda rows: rows.start < count, pairs.each_prompt(first=first))
    units = (list(range(rows.start, min(rows.stop, count))) for rows in prompts)
    while window := list(islice(units, WINDOW)):
        yield pack_units(pairs, window, budget=budget, ranks=ranks)


def step_pairs(num_pairs: int, *, seed: int, step: int, batch: int) -> NDArray[np.int64]:
    """Return pairs of a step, counted from 1: positions [(step−1)·batch, step·batch), (batch,)."""
    positions = np.arange((step - 1) * batch, step * batch, dtype=np.int64)
    epochs, places = np.divmod(positions, num_pairs)
    pairs = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        pairs[here] = permute(places[here], num_pairs, key=f"{seed}/{epoch}")
    return pairs


def permute(places: NDArray[np.int64], size: int, *, key: str) -> NDArray[np.int64]:
    """Map each place by a keyed permutation of range(size).

    >>> sorted(permute(np.arange(10), 10, key="7/0").tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = _round_keys(key)
    image = _feistel(places.astype(np.uint64), half, keys)
    while (outside := image >= size).any():  # each walk stays on its own cycle, so it is one-to-one
        image[outside] = _feistel(image[outside], half, keys)
    return image.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & mask
    for key in keys:
        left, right = right, left ^ (mix(right + key) & mask)
    return (left << np.uint64(half)) | right


def _round_keys(key: str) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(key.encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8")
