"""The metrics of training, without gradients, over a split."""

import numpy as np
import torch

from dpo.loss import PairLogps
from dpo.metrics import means, pair_sums
from dpo.packing import plan
from dpo.run import Run, Split

WINDOW = 256
"""Pairs that are packed together."""


@torch.no_grad()
def evaluate(run: Run, split: Split) -> dict[str, float]:
    """Means over the split's first `eval_rows` pairs, named `eval/…`; each pair counts once.

    Losses that couple pairs see them in batches of `global_batch_size`, in the split's order.
    """
    run.policy.eval()
    count = min(len(split.pairs), run.config.eval_rows or len(split.pairs))
    columns = torch.zeros((count, len(PairLogps._fields)), dtype=torch.float64)
    columns = columns.to(run.accelerator.device)
    for rows in _share(run, split, count):
        batch = split.pack(rows, run.accelerator.device)
        with run.accelerator.autocast():
            logps = split.pair_logps(rows, batch, run.policy(batch))
        columns[rows] = torch.stack(logps, 1).double()
    run.policy.train()
    whole = PairLogps(*run.accelerator.reduce(columns, "sum").unbind(1))
    batches = [
        PairLogps(*(column[start : start + run.config.global_batch_size] for column in whole))
        for start in range(0, count, run.config.global_batch_size)
    ]
    losses = torch.cat([run.objective(batch) for batch in batches])
    return means(pair_sums(losses, whole, beta=run.objective.beta), prefix="eval/")


def _share(run: Run, split: Split, count: int) -> list[list[int]]:
    """The packs of this rank, of the first `count` pairs."""
    sizes = split.pairs.sizes[:count]
    packs: list[list[int]] = []
    for start in range(0, count, WINDOW):
        window = np.arange(start, min(start + WINDOW, count))
        ranks = run.accelerator.num_processes
        share = plan(sizes[window].tolist(), budget=run.config.pack_tokens, ranks=ranks)
        packs += [window[places].tolist() for places in share[run.accelerator.process_index]]
    return packs
