"""Metrics of a step or an evaluation: sums over pairs that add up over packs and ranks."""

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping
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

OF_REFERENCE = ("rewards/", "logratios/", "kl_estimate")
"""Beginnings of the names of metrics that are absent without a reference."""

SUMS = (*METRICS, "pairs", "reference_loss", "aux_loss")
"""Names of the sums of a step: each metric's, the number of pairs, the loss of a policy that equals
the reference, and the load-balancing loss."""

TIE = 1e-4
"""Difference of two log-ratios, in nats, below which float32 cannot order them."""
SPIKE_WINDOW = 128
"""Number of previous steps whose mean and deviation a loss is compared with."""
SPIKE_HEIGHT = 6.0
"""Standard deviations above the mean."""


@torch.no_grad()
def pair_sums(losses: Tensor, logps: PairLogps, *, beta: float, **others: Tensor) -> Tensor:
    """Return the sums of a pack, (len(SUMS),), float64; those not in `others` are zero."""
    pairs = PairMetrics(losses, logps, beta)
    sums = {name: metric(pairs).double().sum() for name, metric in METRICS.items()}
    zero = torch.zeros_like(sums["loss"])
    sums |= {"pairs": zero + len(losses), **others}
    return torch.stack([sums.get(name, zero).to(zero) for name in SUMS])


def is_right(logps: PairLogps) -> Tensor:
    """Return 1 if the chosen side has the higher reward, 0.5 for a tie, else 0: (B,)."""
    return (logps.margins > TIE).double() + (logps.margins.abs() <= TIE).double() / 2


def means(
    sums: Mapping[str, float], *, prefix: str = "", has_reference: bool = True
) -> dict[str, float]:
    """Return means over pairs, by name, and `kl_estimate`; without a reference, fewer of them.

    This is the mean of log π_ref − log π over all completions, in nats. If they were drawn from
    the reference, it is an unbiased estimate of KL(π_ref ‖ π). Otherwise it shows how much less
    likely the data have become.
    """
    found = {name: sums[name] / sums["pairs"] for name in METRICS}
    found["kl_estimate"] = -(found["logratios/chosen"] + found["logratios/rejected"]) / 2
    return {
        f"{prefix}{name}": value
        for name, value in found.items()
        if has_reference or not name.startswith(OF_REFERENCE)
    }


def by_name(sums: Tensor) -> dict[str, float]:
    """Return the sums of `pair_sums` by their names."""
    return dict(zip(SUMS, sums.tolist(), strict=True))


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Round to eight significant digits, one more than float32 has."""
    return {name: float(f"{value:.8g}") for name, value in metrics.items()}


class LossSpikes:
    """Losses of the last steps, also of an earlier start, to find unusually high ones."""

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._losses = deque(losses, maxlen=SPIKE_WINDOW)

    def sees(self, loss: float) -> float | None:
        """Record a loss; return its height in standard deviations if it is a spike, else None.

        >>> watch = LossSpikes([0.6, 0.7] * 64)
        >>> watch.sees(0.7), round(watch.sees(1.7) or 0)
        (None, 21)
        """
        found = None
        if len(self._losses) == SPIKE_WINDOW:
            spread = statistics.pstdev(self._losses)
            height = (loss - statistics.fmean(self._losses)) / spread if spread else 0.0
            found = height if height > SPIKE_HEIGHT else None
        self._losses.append(loss)
        return found
