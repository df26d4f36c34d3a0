"""Evaluation: the metrics of training over a split, without gradients."""

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dpo.data.sampler import make_order, packs_in_order
from dpo.loss import PairLogps
from dpo.training.metrics import by_name, is_right, means, pair_sums
from dpo.training.setup import TrainContext
from dpo.training.split import Split
from dpo.training.step import forward_logps


def evaluate_all(run: TrainContext) -> dict[str, float]:
    """Return the metrics of all evaluation splits: `eval/…`, and `eval/NAME/…` for further ones."""
    found = {} if run.test is None else evaluate(run, run.test)
    for name, split in run.further.items():
        found |= evaluate(run, split, prefix=f"eval/{name}/")
    return found


@torch.no_grad()
def evaluate(run: TrainContext, split: Split, *, prefix: str = "eval/") -> dict[str, float]:
    """Return means over the split's first `eval_rows` pairs, named `eval/…`; each counts once.

    Losses that couple pairs see them in batches of `global_batch_size` pairs or groups, in the
    split's order.
    """
    run.policy.eval()
    count = min(len(split.pairs), run.config.eval_rows or len(split.pairs))
    budget, ranks = run.config.pack_size, run.accelerator.num_processes
    windows = packs_in_order(split.pairs, count, budget=budget, ranks=ranks)
    packs = (rows for window in windows for rows in window[run.accelerator.process_index])
    whole, _ = forward_logps(run, split, packs, range(count))
    run.policy.train()
    cuts = make_order(split.pairs, run.config).starts[:: run.config.global_batch_size]
    batches = [
        PairLogps(*(column[start:stop] for column in whole))
        for start, stop in pairwise([*cuts[cuts < count].tolist(), count])
    ]
    losses = torch.cat([run.objective(batch) * batch.weight for batch in batches])
    sums = by_name(pair_sums(losses, whole, beta=run.objective.beta))
    if run.reference_hash is None:
        return means(sums, prefix=prefix, has_reference=False)
    return means(sums, prefix=prefix) | _by_source(split, is_right(whole), prefix)


def sample(run: TrainContext) -> list[dict[str, Any]]:
    """Return the policy's completions of the run's fixed prompts; all ranks draw the same."""
    assert run.sampler is not None
    policy = run.accelerator.unwrap_model(run.policy)
    run.policy.eval()
    with policy.unshared():
        found: list[dict[str, Any]] = policy.run(partial(run.sampler.draw, autocast=run.autocast()))
    run.policy.train()
    return found


def _by_source(split: Split, right: Tensor, prefix: str) -> dict[str, float]:
    """Return the accuracy of each input file's pairs, if the split has several."""
    numbers = torch.from_numpy(split.source_numbers[: len(right)]).to(right.device)
    return {
        f"{prefix}rewards/accuracies/{name}": float(right[numbers == number].mean())
        for number, name in enumerate(split.sources)
        if bool((numbers == number).any())
    }
