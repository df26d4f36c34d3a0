"""Inputs of losses: log-probs, lengths and stored margins of pairs."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PairLogps(NamedTuple):
    """Log-probs of B pairs, in nats, summed over each completion; lengths; the data's margins.

    All tensors have shape (B,). Lengths count the tokens that are summed, with their weights.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    margin: Tensor
    """Degree by which chosen is better, in the data's own unit; NaN if the data do not state it."""
    group: Tensor
    """Index of the group: equal for pairs of one prompt."""
    winner: Tensor
    """Index of chosen within the group: equal for pairs with the same chosen."""
    weight: Tensor
    """Factor of each loss under WPO; 1 without it."""

    @property
    def chosen_logratios(self) -> Tensor:
        """Return log π(chosen) − log π_ref(chosen), (B,)."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_logratios(self) -> Tensor:
        """Return log π(rejected) − log π_ref(rejected), (B,)."""
        return self.rejected - self.ref_rejected

    @property
    def margins(self) -> Tensor:
        """Return chosen minus rejected log-ratios, (B,)."""
        return self.chosen_logratios - self.rejected_logratios

    @property
    def margins_per_token(self) -> Tensor:
        """Return chosen minus rejected log-ratios, each per token of its completion, (B,)."""
        chosen = self.chosen_logratios / self.chosen_length
        return chosen - self.rejected_logratios / self.rejected_length

    @property
    def chosen_mean(self) -> Tensor:
        """Return log π(chosen) per token, (B,)."""
        return self.chosen / self.chosen_length

    @property
    def rejected_mean(self) -> Tensor:
        """Return log π(rejected) per token, (B,)."""
        return self.rejected / self.rejected_length

    def columns(self) -> Tensor:
        """Return all fields as one tensor, (B, fields), float64."""
        return torch.stack([column.double() for column in self], 1)

    def at_reference(self) -> "PairLogps":
        """Return the same pairs under a policy that equals the reference."""
        return self._replace(chosen=self.ref_chosen, rejected=self.ref_rejected)


def _forward_kl(logratios: Tensor) -> Tensor:
    return 1 - torch.exp(-logratios)


def _js(logratios: Tensor) -> Tensor:
    return math.log(2) + F.logsigmoid(logratios)


def _alpha(alpha: float) -> Callable[[Tensor], Tensor]:
    return lambda logratios: torch.expm1((alpha - 1) * logratios) / (alpha - 1)


DIVERGENCES: dict[str, Callable[[Tensor], Tensor]] = {"forward_kl": _forward_kl, "js": _js}
"""f′(π/π_ref) of a log-ratio, up to a constant: https://arxiv.org/abs/2309.16240."""


def diverge(logps: PairLogps, divergence: str, alpha: float | None = None) -> PairLogps:
    """Replace log-ratios h by f′(eʰ), so that a loss on margins has that f-divergence.

    `alpha` is the α of the `alpha` divergence, (e^((α − 1)·h) − 1) / (α − 1), as TRL writes it:
    α = 1 is the reverse KL of DPO.
    """
    if alpha == 1:
        return logps
    score = _alpha(alpha) if alpha is not None else DIVERGENCES[divergence]
    zero = torch.zeros_like(logps.chosen)
    return logps._replace(
        chosen=score(logps.chosen_logratios),
        rejected=score(logps.rejected_logratios),
        ref_chosen=zero,
        ref_rejected=zero,
    )
