"""What a step or an evaluation measured: sums over pairs that add up over packs and ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dpo.loss import PairLogps

NAMES = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "logratios/chosen",
    "logratios/rejected",
)
"""The field's names, as TRL logs them, so that curves compare; and how far each side has moved from
the reference, in nats: a chosen side that falls is what DPO is known for."""

TIE = 1e-4
"""Nats between two log-ratios below which float32 cannot say which is higher."""


@torch.no_grad()
def pair_sums(losses: Tensor, logps: PairLogps, *, beta: float) -> Tensor:
    """Sums over the pairs of a pack, in the order of NAMES, then the pairs: (10,), float64.

    reward = beta · log-ratio; a tie between the two sides counts as half right.
    """
    chosen, rejected = beta * logps.chosen_logratios, beta * logps.rejected_logratios
    columns = (
        *(losses, chosen, rejected, chosen - rejected, is_right(logps)),
        *(logps.chosen, logps.rejected),
        *(logps.chosen_logratios, logps.rejected_logratios),
    )
    return torch.stack(
        [*(column.double().sum() for column in columns), losses.new_tensor(len(losses)).double()]
    )


def is_right(logps: PairLogps) -> Tensor:
    """1 where the chosen side has the higher reward, a half for a tie, (B,)."""
    return (logps.margins > TIE).double() + (logps.margins.abs() <= TIE).double() / 2


def means(sums: Tensor, *, prefix: str = "") -> dict[str, float]:
    """Means over pairs, by name, and `kl_estimate`.

    This is the mean of log π_ref − log π over all completions, in nats. Where they were drawn from
    the reference, it estimates KL(π_ref ‖ π) without bias; else it tells how much less likely the
    data have become.
    """
    found = dict(zip(NAMES, (sums[:-1] / sums[-1]).tolist(), strict=True))
    found["kl_estimate"] = -(found["logratios/chosen"] + found["logratios/rejected"]) / 2
    return {f"{prefix}{name}": value for name, value in found.items()}


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Eight significant digits: what float32 holds, and one more."""
    return {name: float(f"{value:.8g}") for name, value in metrics.items()}
