"""Losses that use the data's margin, the degree by which chosen is better, of each pair."""

import torch.nn.functional as F
from torch import Tensor

from dpo.loss.pair_logps import PairLogps


def dpo_margin(logps: PairLogps, *, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """−log σ(β·margin − α·the data's margin): https://arxiv.org/abs/2402.10571 with f(x) = x."""
    return -F.logsigmoid(beta * logps.margins - alpha * logps.margin)


def odpo(logps: PairLogps, *, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """`dpo_margin` with the log of the data's margin, which must be above 0: the paper's f."""
    return -F.logsigmoid(beta * logps.margins - alpha * logps.margin.log())


def rpo_square(logps: PairLogps, *, beta: float = 0.1, eta: float = 1.0) -> Tensor:
    """(β·margin − η·the data's margin)²: reward-aware preference optimization, arXiv 2406.11704."""
    return (beta * logps.margins - eta * logps.margin) ** 2


def rpo_backward_kl(logps: PairLogps, *, beta: float = 0.1, eta: float = 1.0) -> Tensor:
    """KL from the data's chance that chosen wins to the policy's: arXiv 2406.11704."""
    return _bernoulli_kl(eta * logps.margin, beta * logps.margins)


def rpo_forward_kl(logps: PairLogps, *, beta: float = 0.1, eta: float = 1.0) -> Tensor:
    """KL from the policy's chance that chosen wins to the data's: arXiv 2406.11704."""
    return _bernoulli_kl(beta * logps.margins, eta * logps.margin)


def _bernoulli_kl(logits: Tensor, other: Tensor) -> Tensor:
    """Return KL(Bernoulli(σ(x)) ‖ Bernoulli(σ(y)))."""
    wins = logits.sigmoid() * (F.logsigmoid(logits) - F.logsigmoid(other))
    return wins + (-logits).sigmoid() * (F.logsigmoid(-logits) - F.logsigmoid(-other))
