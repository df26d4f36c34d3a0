"""Losses in which the pairs of a step depend on each other, so the whole step is one call.

The mean over the returned (B,) is the loss of the step.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo.loss.margin import smoothed
from dpo.loss.pair_logps import PairLogps


def sft_tokens(logps: PairLogps) -> Tensor:
    """−log π of all chosen tokens of the step, divided by their number: TRL's `sft`."""
    return -logps.chosen * len(logps.chosen) / logps.chosen_length.sum()


def kto_pair(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Each side against the other side's mean, at least 0: https://arxiv.org/abs/2402.01306.

    No gradient flows through the means.
    """
    chosen, rejected = logps.chosen_logratios, logps.rejected_logratios
    chosen_mean = F.relu(chosen.detach().mean())
    rejected_mean = F.relu(rejected.detach().mean())
    gains = (beta * (chosen - rejected_mean)).sigmoid()
    losses = (beta * (chosen_mean - rejected)).sigmoid()
    return 2 - gains - losses


def aot(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """The policy's margins against the reference's, quantile by quantile: arXiv 2406.05882."""
    policy = (logps.chosen - logps.rejected).sort().values
    ref = (logps.ref_chosen - logps.ref_rejected).sort().values
    return smoothed(beta * (policy - ref), label_smoothing)


def aot_unpaired(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Chosen log-ratios against rejected ones, quantile by quantile: arXiv 2406.05882."""
    chosen, rejected = logps.chosen_logratios.sort().values, logps.rejected_logratios.sort().values
    return smoothed(beta * (chosen - rejected), label_smoothing)


def dr_dpo(logps: PairLogps, *, beta: float = 0.1, beta_prime: float = 1.0) -> Tensor:
    """−β′·log mean e^(−loss/β′) of DPO's losses: https://arxiv.org/abs/2407.07880.

    Large β′ is DPO; a small one reduces the weight of pairs that the policy contradicts.
    """
    losses = -F.logsigmoid(beta * logps.margins)
    mean = torch.logsumexp(-losses / beta_prime, 0) - math.log(len(losses))
    return (-beta_prime * mean).expand(len(losses))
