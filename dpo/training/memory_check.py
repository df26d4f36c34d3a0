"""Memory check: the largest pack runs before step 1, so that an OOM appears at once."""

import numpy as np

from dpo.data.lengths import costliest, of_pair
from dpo.errors import MODEL_ERRORS, TrainingError, UsageError, first_line, is_of_memory
from dpo.training.optimizer import init_optimizer_state
from dpo.training.setup import TrainContext

COUNTED = 64
"""Groups whose tokens are counted: those with the most if no completion were shared."""


def check_memory(run: TrainContext) -> None:
    """Run the longest pair or group in a full pack, forward and backward; drop the gradients.

    The optimizer's moments are allocated first, so this takes as much memory as a step. They also
    get addresses below the memory that each step frees and allocates again.

    Raises TrainingError if memory is too small (T303, naming the longest one's first pair; T305 for
    the moments), and
    UsageError (T183) if the model's own code fails.
    """
    pairs = run.train.pairs
    chosen = _largest_pack(run)
    rows = [row for unit in chosen for row in unit]
    pairs.shards.check(rows)
    _allocate_moments(run)
    try:
        with run.autocast():
            found = run.policy(run.train.batch(rows, run.accelerator.device).pack)
            total = found.logps_N.sum()
        run.accelerator.backward(total)
    except (MemoryError, *MODEL_ERRORS) as error:
        if not is_of_memory(error):
            raise _fails(run, error) from error
        name, sizes = pairs.pair_id(rows[0])[:12], [pairs.num_tokens(unit) for unit in chosen]
        longest, tokens = sizes[0], sum(sizes)
        whose = "pair" if len(chosen[0]) == 1 else "the group of pair"
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


def _largest_pack(run: TrainContext) -> list[range]:
    """Return the rows of the pairs or groups of the largest pack; the longest comes first."""
    pairs = run.train.pairs
    budget, most = run.config.pack_size, run.config.global_batch_size  # a pack is of one step
    if len(run.order) == len(pairs):
        wanted = costliest(pairs.counts.pairs, budget=budget, most=most)
        return [range(row, row + 1) for row in pairs.find(of_pair, wanted)]
    groups = pairs.longest_groups(COUNTED)
    sizes = [pairs.num_tokens(group) for group in groups]
    order = np.argsort(sizes, kind="stable")
    wanted = costliest(np.bincount(sizes), budget=budget, most=most)
    by_rank = np.cumsum(np.bincount(sizes)) - np.bincount(sizes)
    return [groups[order[by_rank[one.length] + one.place]] for one in wanted]
