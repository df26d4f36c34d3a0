"""The metrics of training, without gradients, over a split."""

import numpy as np
import torch

from dpo.loss import LOSSES
from dpo.metrics import NAMES, means, pair_sums
from dpo.packing import plan
from dpo.run import Run, Split

WINDOW = 256
"""Pairs that are packed together."""


@torch.no_grad()
def evaluate(run: Run, split: Split) -> dict[str, float]:
    """Means over the split's first `eval_rows` pairs, named `eval/…`; each pair counts once."""
    run.policy.eval()
    sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64, device=run.accelerator.device)
    for rows in _share(run, split):
        batch = split.pack(rows, run.accelerator.device)
        with run.accelerator.autocast():
            logps = split.pair_logps(rows, batch, run.policy(batch))
        settings = run.config.loss.settings
        losses = LOSSES[run.config.loss.name](logps, **settings)
        sums += pair_sums(losses, logps, beta=settings["beta"])
    run.policy.train()
    return means(run.accelerator.reduce(sums, "sum"), prefix="eval/")


def _share(run: Run, split: Split) -> list[list[int]]:
    """The packs of this rank."""
    count = min(len(split.pairs), run.config.eval_rows or len(split.pairs))
    sizes = split.pairs.sizes[:count]
    packs: list[list[int]] = []
    for start in range(0, count, WINDOW):
        window = np.arange(start, min(start + WINDOW, count))
        ranks = run.accelerator.num_processes
        share = plan(sizes[window].tolist(), budget=run.config.pack_tokens, ranks=ranks)
        packs += [window[places].tolist() for places in share[run.accelerator.process_index]]
    return packs
