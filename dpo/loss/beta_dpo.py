"""Losses with running statistics: an EMA of past margins sets β and the pairs that count."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo.loss.pair_logps import PairLogps

_LEAST = 1e-3
"""Minimum of β and of the deviation, so that neither becomes 0."""


class Margins(NamedTuple):
    """EMA of the mean and standard deviation of margins per step, in nats."""

    mean: float = 0.0
    deviation: float = 1.0


def update_running_stats(
    before: Margins | None, margins: Tensor, *, momentum: float
) -> Margins | None:
    """Update the EMA with a step's margins, (B,); non-finite steps are ignored.

    The first step initialises it.
    """
    found = Margins(float(margins.mean()), float(margins.std(correction=0)))
    if not bool(margins.isfinite().all()):
        return before
    if before is None:
        return found
    pairs = zip(before, found, strict=True)
    return Margins(*(momentum * old + (1 - momentum) * new for old, new in pairs))


def beta_dpo(
    logps: PairLogps,
    seen: Margins | None = None,
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    keep_fraction: float = 0.8,
    momentum: float = 0.9,  # noqa: ARG001 — for `update_running_stats`
) -> Tensor:
    """DPO with a β per step, on pairs with usual margins: https://arxiv.org/abs/2407.08639.

    M are the margins in nats, and M₀ and s the EMA of their mean and deviation. `keep_fraction` of
    the pairs are drawn with weights e^(−((M − M₀)/s)²/2), without replacement. Their β is
    β·(1 + α·(mean M of these − M₀)), at least 0.001. Without gradients, as in evaluation, all pairs
    are kept.
    """
    mean, deviation = seen or Margins()
    margins = logps.margins.detach().double()
    drawn = torch.ones_like(margins)
    count = max(1, round(keep_fraction * len(margins)))
    if logps.margins.requires_grad and count < len(margins):
        distance = (margins - mean) / max(deviation, _LEAST)
        # relative to the most usual pair, so that not all are 0 where all are far away
        usual = torch.exp((distance.square().amin() - distance.square()) / 2)
        chosen = torch.multinomial(usual.clamp(min=1e-30), count)
        drawn = torch.zeros_like(margins).index_fill(0, chosen, len(margins) / count)
    mean_drawn = (margins * drawn).mean()
    own = max(_LEAST, beta * (1 + alpha * (float(mean_drawn) - mean)))
    return -F.logsigmoid(own * logps.margins) * drawn.to(logps.margins)
