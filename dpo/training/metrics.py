"""Metrics of a step or an evaluation: sums over pairs that add up over packs and ranks."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dpo.loss import PairLogps


class PairMetrics(NamedTuple):
    """What a metric is computed from, for the pairs of a pack."""

    losses: Tensor
    """(B,), weighted."""
    logps: PairLogps
    beta: float
    """Rewards are beta · log-ratio."""


METRICS: Mapping[str, Callable[[PairMetrics], Tensor]] = {
    "loss": lambda m: m.losses,
    "rewards/chosen": lambda m: m.beta * m.logps.chosen_logratios,
    "rewards/rejected": lambda m: m.beta * m.logps.rejected_logratios,
    "rewards/margins": lambda m: (
        m.beta * m.logps.chosen_logratios - m.beta * m.logps.rejected_logratios
    ),
    "rewards/accuracies": lambda m: is_right(m.logps),
    "logps/chosen": lambda m: m.logps.chosen,
    "logps/rejected": lambda m: m.logps.rejected,
    "logratios/chosen": lambda m: m.logps.chosen_logratios,
    "logratios/rejected": lambda m: m.logps.rejected_logratios,
}
"""Metrics of pairs, each (B,), that are averaged over a step or a split. The names are those that
TRL logs, so that curves compare; `logratios` say how far each side moved from the reference, in
nats: a chosen side that falls is what DPO is known for."""

TIE = 1e-4
"""Difference of two log-ratios, in nats, below which float32 cannot order them."""


@torch.no_grad()
def pair_sums(losses: Tensor, logps: PairLogps, *, beta: float) -> Tensor:
    """Return the sum of each of METRICS over the pairs of a pack, then the number of pairs.

    (len(METRICS) + 1,), float64, so that they add up over packs and ranks.
    """
    pairs = PairMetrics(losses, logps, beta)
    sums = [metric(pairs).double().sum() for metric in METRICS.values()]
    return torch.stack([*sums, losses.new_tensor(len(losses)).double()])


def is_right(logps: PairLogps) -> Tensor:
    """Return 1 if the chosen side has the higher reward, 0.5 for a tie, else 0: (B,)."""
    return (logps.margins > TIE).double() + (logps.margins.abs() <= TIE).double() / 2


def means(sums: Tensor, *, prefix: str = "") -> dict[str, float]:
    """Return means over pairs, by name, and `kl_estimate`.

    This is the mean of log π_ref − log π over all completions, in nats. If they were drawn from
    the reference, it is an unbiased estimate of KL(π_ref ‖ π). Otherwise it shows how much less
    likely the data have become.
    """
    found = dict(zip(METRICS, (sums[:-1] / sums[-1]).tolist(), strict=True))
    found["kl_estimate"] = -(found["logratios/chosen"] + found["logratios/rejected"]) / 2
    return {f"{prefix}{name}": value for name, value in found.items()}


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Round to eight significant digits, one more than float32 has."""
    return {name: float(f"{value:.8g}") for name, value in metrics.items()}
