"""Losses of only the policy: reference log-probs, if there are any, serve the metrics."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo.loss.pair_logps import PairLogps


def sft(logps: PairLogps) -> Tensor:
    """−log π(chosen): the paper's baseline Preferred-FT, §6 of https://arxiv.org/abs/2305.18290."""
    return -logps.chosen


def sft_norm(logps: PairLogps) -> Tensor:
    """−log π(chosen) per token of its completion: the second term of RPO and Llama 3."""
    return -logps.chosen_mean


def unlikelihood(logps: PairLogps, *, alpha: float = 1.0) -> Tensor:
    """−log π(chosen) + α·log π(rejected): a baseline of https://arxiv.org/abs/2305.18290, §6."""
    return -logps.chosen + alpha * logps.rejected


def simpo(logps: PairLogps, *, beta: float = 2.5, gamma: float = 0.5) -> Tensor:
    """−log σ(β·difference of mean log-probs − γ): Eq. 6 of https://arxiv.org/abs/2405.14734."""
    return -F.logsigmoid(beta * (logps.chosen_mean - logps.rejected_mean) - gamma)


def alphapo(
    logps: PairLogps, *, beta: float = 2.5, gamma: float = 0.5, alpha: float = 0.25
) -> Tensor:
    """SimPO with the reward β·(1 − p^−α)/α, p = e^(mean log-prob): https://arxiv.org/abs/2501.03884.

    α near 0 is SimPO.
    """

    def reward(mean: Tensor) -> Tensor:
        return mean if alpha == 0 else -torch.expm1(-alpha * mean) / alpha

    difference = reward(logps.chosen_mean) - reward(logps.rejected_mean)
    return -F.logsigmoid(beta * difference - gamma)


def orpo(logps: PairLogps, *, alpha: float = 0.1) -> Tensor:
    """−mean log-prob − α·log σ(log odds ratio): Eq. 6–7 of https://arxiv.org/abs/2403.07691."""
    chosen, rejected = logps.chosen_mean, logps.rejected_mean
    odds = chosen - rejected - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - alpha * F.logsigmoid(odds)


def cpo(logps: PairLogps, *, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """−log σ(β·(log π(chosen) − log π(rejected))) − α·log π(chosen): arXiv 2401.08417."""
    return -F.logsigmoid(beta * (logps.chosen - logps.rejected)) - alpha * logps.chosen


def slic(logps: PairLogps, *, delta: float = 1.0, alpha: float = 0.1) -> Tensor:
    """max(0, δ − log π(chosen) + log π(rejected)) − α·log π(chosen): arXiv 2305.10425."""
    return F.relu(delta - logps.chosen + logps.rejected) - alpha * logps.chosen


def _log1mexp(logs: Tensor) -> Tensor:
    """Return log(1 − eˣ) for x < 0, precise also if eˣ is near 0 or 1."""
    near_one = logs > -0.6931471805599453
    small = torch.log(-torch.expm1(torch.where(near_one, logs, -1.0)))
    large = torch.log1p(-torch.exp(torch.where(near_one, -1.0, logs)))
    return torch.where(near_one, small, large)
