"""Preference losses: one pure function for each paper, from the log-probs of pairs to their losses.

Every function returns the loss of each pair, (B,), and leaves reduction, weights and devices to
its caller. `LOSSES` is the table that a config chooses from; a loss takes what its signature
names and nothing else.
"""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PairLogps(NamedTuple):
    """Log-probs of B pairs, in nats, summed over each completion; and completion lengths.

    All tensors have shape (B,). The lengths count the tokens that the sums run over.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor

    @property
    def chosen_logratios(self) -> Tensor:
        """log π(chosen) − log π_ref(chosen), (B,)."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_logratios(self) -> Tensor:
        """log π(rejected) − log π_ref(rejected), (B,)."""
        return self.rejected - self.ref_rejected

    @property
    def margins(self) -> Tensor:
        """Chosen minus rejected log-ratios, (B,)."""
        return self.chosen_logratios - self.rejected_logratios

    @property
    def margins_per_token(self) -> Tensor:
        """Chosen minus rejected log-ratios, each divided by its completion's length, (B,)."""
        chosen = self.chosen_logratios / self.chosen_length
        return chosen - self.rejected_logratios / self.rejected_length


def dpo(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """−log σ(β·margin): Eq. 7 of https://arxiv.org/abs/2305.18290."""
    return -F.logsigmoid(beta * logps.margins)


def cdpo(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """DPO where a label is flipped with probability ε: Eq. 3 of https://ericmitchell.ai/cdpo.pdf."""
    scaled = beta * logps.margins
    return -(1 - label_smoothing) * F.logsigmoid(scaled) - label_smoothing * F.logsigmoid(-scaled)


def robust(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """An unbiased estimate of DPO under flips of rate ε < ½: https://arxiv.org/abs/2403.00409."""
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


Loss = Callable[..., Tensor]

LOSSES: Mapping[str, Loss] = {
    loss.__name__: loss for loss in (dpo, cdpo, robust, ipo, ipo_norm, hinge, dpo_norm)
}


def settings(name: str) -> dict[str, float]:
    """The settings that a loss takes, with its own defaults.

    >>> settings("dpo_norm")
    {'beta': 5.0}
    """
    parameters = signature(LOSSES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}


def at_reference(name: str, given: Mapping[str, float]) -> float:
    """The loss of a pair whose policy is its reference: every log-ratio is 0.

    >>> round(at_reference("dpo", {"beta": 0.1}), 4)
    0.6931
    """
    zero, one = torch.zeros(1), torch.ones(1)
    return float(LOSSES[name](PairLogps(zero, zero, zero, zero, one, one), **given))
