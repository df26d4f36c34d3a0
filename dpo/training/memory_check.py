"""Memory check: the largest pack runs before step 1, so that an OOM appears at once."""

import numpy as np
from numpy.typing import NDArray

from dpo.errors import MODEL_ERRORS, TrainingError, UsageError, first_line, is_of_memory
from dpo.training.optimizer import init_optimizer_state
from dpo.training.setup import TrainContext

COUNTED = 1024


def check_memory(run: TrainContext) -> None:
    """Run the longest pair or group in a full pack, forward and backward; drop the gradients.

    The optimizer's moments are allocated first, so this takes as much memory as a step. They also
    get addresses below the memory that each step frees and allocates again.

    Raises TrainingError if memory is too small (T303, naming the longest one's first pair; T305 for
    the moments), and
    UsageError (T183) if the model's own code fails.
    """
    pairs = run.train.pairs
    units, sizes = _longest_units(run)
    most = run.config.global_batch_size  # a pack has pairs of one step
    chosen = costliest(sizes, budget=run.config.pack_size, most=most)
    rows_of = [range(*run.order.starts[units[at] : units[at] + 2]) for at in chosen]
    rows = [row for some in rows_of for row in some]
    _allocate_moments(run)
    try:
        with run.autocast():
            found = run.policy(run.train.batch(rows, run.accelerator.device).pack)
            total = found.logps_N.sum()
        run.accelerator.backward(total)
    except (MemoryError, *MODEL_ERRORS) as error:
        if not is_of_memory(error):
            raise _fails(run, error) from error
        name, longest = pairs.pair_id(rows[0])[:12], int(sizes[chosen[0]])
        tokens = int(sizes[chosen].sum())
        whose = "pair" if len(rows_of[0]) == 1 else "the group of pair"
        detail = f"{whose} {name} has {longest:,} of them"
        problem = f"{tokens:,} tokens do not fit into memory ({detail})"
        remedy = (
            "lower pack_tokens"
            if longest < tokens
            else "set gradient_checkpointing, or build with a smaller max_length"
        )
        raise TrainingError("T303", "the largest pack", problem, remedy) from error
    finally:
        run.optimizer.zero_grad(set_to_none=True)


def _allocate_moments(run: TrainContext) -> None:
    """Allocate the optimizer's moments. Raises TrainingError (T305) if they do not fit."""
    try:
        init_optimizer_state(run.optimizer)
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        planned = (run.plan.memory.weights + run.plan.memory.moments) / 1e9
        problem = f"they do not fit into memory with the weights, {planned:,.1f} GB together"
        remedy = (
            "use optimizer.name adamw_8bit or rmsprop, lora, or fsdp2.yaml; smaller packs and"
            " gradient_checkpointing do not lower them"
        )
        raise TrainingError("T305", "the optimizer's moments", problem, remedy) from error


def _fails(run: TrainContext, error: Exception) -> UsageError:
    problem = f"a training pass of the model fails ({first_line(error)})"
    remedy = "set dropout: true if it trains only with dropout, or use another model"
    return UsageError("T183", run.config.model, problem, remedy)


def _longest_units(run: TrainContext) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of units and their tokens: all pairs, or the groups that may be longest.

    Counting a group's tokens takes time, so only those with the largest bounds are counted.
    """
    pairs, starts = run.train.pairs, run.order.starts
    if len(run.order) == len(pairs):
        return np.arange(len(pairs)), pairs.sizes
    bounds = np.add.reduceat(pairs.sizes, starts[:-1])
    units = np.argsort(-bounds, kind="stable")[:COUNTED]
    sizes = [pairs.num_tokens(range(starts[unit], starts[unit + 1])) for unit in units]
    return units, np.array(sizes, np.int64)


def costliest(sizes: NDArray[np.int64], *, budget: int, most: int) -> list[int]:
    """Return the longest, then repeatedly the longest other that still fits, at most `most`.

    >>> costliest(np.array([3, 9, 4, 2]), budget=15, most=8)
    [1, 2, 3]
    """
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    place = len(order) - 1
    rows, room = [int(order[place])], budget - int(ascending[place])
    while len(rows) < most:
        place = min(place, int(np.searchsorted(ascending, room, side="right"))) - 1
        if place < 0:
            break
        rows.append(int(order[place]))
        room -= int(ascending[place])
    return rows
