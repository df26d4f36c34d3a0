"""Losses of only the margin: chosen minus rejected log-ratio, in sums or per token."""

import torch.nn.functional as F
from torch import Tensor

from dpo.loss.pair_logps import PairLogps


def dpo(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """−log σ(β·margin): Eq. 7 of https://arxiv.org/abs/2305.18290."""
    return -F.logsigmoid(beta * logps.margins)


def cdpo(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """DPO if a label is flipped with probability ε: Eq. 3 of https://ericmitchell.ai/cdpo.pdf."""
    return smoothed(beta * logps.margins, label_smoothing)


def robust(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """Unbiased estimate of DPO under flips of rate ε < ½: https://arxiv.org/abs/2403.00409."""
    scaled = beta * logps.margins
    kept = -(1 - label_smoothing) * F.logsigmoid(scaled)
    return (kept + label_smoothing * F.logsigmoid(-scaled)) / (1 - 2 * label_smoothing)


def ipo(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """(margin − 1/(2β))²: Eq. 17 of https://arxiv.org/abs/2310.12036, on sums as in the paper."""
    return (logps.margins - 1 / (2 * beta)) ** 2


def ipo_norm(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """IPO on log-ratios per token, the form that TRL trains."""
    return (logps.margins_per_token - 1 / (2 * beta)) ** 2


def hinge(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """max(0, 1 − β·margin): SLiC's loss on DPO's margin, https://arxiv.org/abs/2309.06657."""
    return F.relu(1 - beta * logps.margins)


def dpo_norm(logps: PairLogps, *, beta: float = 5.0) -> Tensor:
    """DPO on log-ratios per token: Eq. 6 of https://arxiv.org/abs/2411.15124."""
    return -F.logsigmoid(beta * logps.margins_per_token)


def exo_pair(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 1e-3) -> Tensor:
    """Reverse KL to smoothed labels: Eq. 16 of https://arxiv.org/abs/2402.00856; needs ε > 0."""
    scaled = beta * logps.margins
    kept, flipped = F.logsigmoid(scaled), F.logsigmoid(-scaled)
    epsilon = scaled.new_tensor(label_smoothing)
    return kept.exp() * (kept - (-epsilon).log1p()) + flipped.exp() * (flipped - epsilon.log())


def discopop(logps: PairLogps, *, beta: float = 0.1, tau: float = 0.05) -> Tensor:
    """Blend of logistic and exponential loss: Eq. 5 of https://arxiv.org/abs/2406.08414."""
    scaled = beta * logps.margins
    share = (scaled / tau).sigmoid()
    return -(1 - share) * F.logsigmoid(scaled) + share * (-scaled).exp()


def smoothed(scaled: Tensor, label_smoothing: float) -> Tensor:
    """Return −(1 − ε)·log σ(x) − ε·log σ(−x)."""
    return -(1 - label_smoothing) * F.logsigmoid(scaled) - label_smoothing * F.logsigmoid(-scaled)
