"""Evaluation: the metrics of training over a split, without gradients."""

from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise, takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpo.data.sampler import packs_in_order
from dpo.loss import PairLogps
from dpo.training.metrics import by_name, is_right, means, pair_sums, rounded
from dpo.training.setup import TrainContext
from dpo.training.split import Split
from dpo.training.step import forward_logps

NUM_HARDEST = 10


class Evaluation(NamedTuple):
    """Metrics of all evaluation splits, and the pairs of `eval_split` with the largest loss."""

    metrics: dict[str, float]
    """`eval/…`, and `eval/NAME/…` for further splits."""
    hardest: list[dict[str, Any]]
    """Row in the split, pair_id, loss and, with a reference, margin; the largest loss first."""


class _Scored(NamedTuple):
    """Losses, (B,), and log-probs of the first pairs of a split."""

    losses: Tensor
    logps: PairLogps


def evaluate_all(run: TrainContext) -> Evaluation:
    """Evaluate all splits of the run."""
    metrics: dict[str, float] = {}
    hardest: list[dict[str, Any]] = []
    if run.test is not None:
        scored = _score(run, run.test)
        metrics = _metrics(run, run.test, scored, "eval/")
        hardest = _hardest(run, run.test, scored)
    for name, split in run.further.items():
        metrics |= evaluate(run, split, prefix=f"eval/{name}/")
    return Evaluation(metrics, hardest)


def evaluate(run: TrainContext, split: Split, *, prefix: str = "eval/") -> dict[str, float]:
    """Return means over the split's first `eval_rows` pairs, named `eval/…`; each counts once."""
    return _metrics(run, split, _score(run, split), prefix)


@torch.no_grad()
def _score(run: TrainContext, split: Split) -> _Scored:
    """Run the policy over the split's first `eval_rows` pairs.

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
    batches = [
        PairLogps(*(column[start:stop] for column in whole))
        for start, stop in pairwise([*_cuts(run, split, count), count])
    ]
    return _Scored(torch.cat([run.objective(b) * b.weight for b in batches]), whole)


def _cuts(run: TrainContext, split: Split, count: int) -> Iterator[int]:
    """Yield the first row of each batch of units among the first `count` pairs."""
    size = run.config.global_batch_size
    if run.config.batch_unit == "pairs":
        yield from range(0, count, size)
        return
    starts = (rows.start for rows in split.pairs.each_group())
    yield from islice(takewhile(lambda start: start < count, starts), 0, None, size)


def _metrics(run: TrainContext, split: Split, scored: _Scored, prefix: str) -> dict[str, float]:
    sums = by_name(pair_sums(scored.losses, scored.logps, beta=run.objective.beta))
    if run.reference_hash is None:
        return means(sums, prefix=prefix, has_reference=False)
    return means(sums, prefix=prefix) | _by_source(split, is_right(scored.logps), prefix)


def _hardest(run: TrainContext, split: Split, scored: _Scored) -> list[dict[str, Any]]:
    """Return the pairs of largest loss; of equal ones, the first."""
    order = scored.losses.argsort(descending=True, stable=True)[:NUM_HARDEST].tolist()
    margins = run.objective.beta * scored.logps.margins
    found = []
    for row in order:
        values = {"loss": float(scored.losses[row])}
        if run.reference_hash is not None:
            values["margin"] = float(margins[row])
        found.append({"row": row, "pair_id": split.pairs.pair_id(row), **rounded(values)})
    return found


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
    numbers = torch.from_numpy(split.source_numbers[: len(right)].astype(np.int32)).to(right.device)
    return {
        f"{prefix}rewards/accuracies/{name}": float(right[numbers == number].mean())
        for number, name in enumerate(split.sources)
        if bool((numbers == number).any())
    }
