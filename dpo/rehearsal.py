"""The costliest pack, before the first step: memory that does not suffice is told at the start."""

import numpy as np
import torch
from numpy.typing import NDArray

from dpo.errors import TrainingError
from dpo.run import Run

_SAYS_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def rehearse(run: Run) -> None:
    """Run the longest pair in a full pack, forward and back, and forget the gradients.

    Raises TrainingError (T303), which names the pack's longest pair, where memory is too small.
    """
    rows = costliest_rows(run.train.pairs.sizes, budget=run.config.pack_tokens)
    try:
        with run.accelerator.autocast():
            total = run.policy(run.train.pack(rows, run.accelerator.device)).sum()
        run.accelerator.backward(total)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _is_of_memory(error):
            raise
        pairs = run.train.pairs
        name, longest = pairs.pair_id(rows[0])[:12], int(pairs.sizes[rows[0]])
        tokens = int(pairs.sizes[rows].sum())
        problem = f"{tokens:,} tokens do not fit into memory (pair {name} has {longest:,} of them)"
        remedy = (
            "lower pack_tokens"
            if longest < tokens
            else "set gradient_checkpointing, or build with a smaller max_length"
        )
        raise TrainingError("T303", "the largest pack", problem, remedy) from error
    finally:
        run.optimizer.zero_grad(set_to_none=True)


def costliest_rows(sizes: NDArray[np.int64], *, budget: int) -> list[int]:
    """The longest row, and the longest of the others that still fit, until none of them does.

    >>> costliest_rows(np.array([3, 9, 4, 2]), budget=15)
    [1, 2, 3]
    """
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    place = len(order) - 1
    rows, room = [int(order[place])], budget - int(ascending[place])
    while (place := min(place, int(np.searchsorted(ascending, room, side="right"))) - 1) >= 0:
        rows.append(int(order[place]))
        room -= int(ascending[place])
    return rows


def _is_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(part in said for part in _SAYS_MEMORY)
