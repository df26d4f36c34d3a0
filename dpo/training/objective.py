"""Training objective: one loss, or a weighted sum of several."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dpo.config import LossConfig
from dpo.errors import UsageError, first_line, is_of_memory
from dpo.loss import (
    LOSSES,
    STATEFUL,
    WITH_MARGINS,
    PairLogps,
    couples_pairs,
    diverge,
    find_loss,
    is_reference_free,
)
from dpo.loss.beta_dpo import Margins, update_running_stats


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses, called like one loss."""

    losses: tuple[LossConfig, ...]
    seen: dict[str, Margins] = field(default_factory=dict)
    """Running statistics of stateful losses: the only part of a run's state that a step's number
    and the weights do not contain, so checkpoints store it."""

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, (B,)."""
        return torch.stack([loss.weight * self._one(loss, logps) for loss in self.losses]).sum(0)

    def _one(self, loss: LossConfig, logps: PairLogps) -> Tensor:
        if loss.name not in LOSSES:
            return _own(loss, logps)
        if loss.name in STATEFUL:
            return LOSSES[loss.name](logps, self.seen.get(loss.name), **loss.settings)
        if loss.divergence != "reverse_kl":
            logps = diverge(logps, loss.divergence, loss.divergence_alpha)
        return LOSSES[loss.name](logps, **loss.settings)

    def update(self, logps: PairLogps) -> None:
        """Update the running statistics with a step's pairs, before its losses are computed."""
        for loss in self.losses:
            if loss.name in STATEFUL:
                before, momentum = self.seen.get(loss.name), loss.settings["momentum"]
                now = update_running_stats(before, logps.margins.detach(), momentum=momentum)
                self.seen.update({} if now is None else {loss.name: now})

    @property
    def is_coupled(self) -> bool:
        """Return whether a pair's loss depends on the other pairs of its step."""
        return any(couples_pairs(loss.name) for loss in self.losses)

    @property
    def is_reference_free(self) -> bool:
        """Return whether no loss uses the reference."""
        return all(is_reference_free(loss.name) for loss in self.losses)

    @property
    def needs_margins(self) -> str | None:
        """Return the name of the first loss that needs the data's margins, or None."""
        return next((loss.name for loss in self.losses if loss.name in WITH_MARGINS), None)

    @property
    def beta(self) -> float:
        """Return the β of the logged rewards: that of the first loss that has one, else 1."""
        return next((loss.settings["beta"] for loss in self.losses if "beta" in loss.settings), 1.0)


def _own(loss: LossConfig, logps: PairLogps) -> Tensor:
    """Return the losses of a function that is not ours. Raises UsageError (T139)."""
    remedy = "return one loss for each pair"
    try:
        losses = find_loss(loss.name)(logps, **loss.settings)
    except Exception as error:  # a user's code may raise anything
        if is_of_memory(error):
            raise
        problem = f"raised {first_line(error)}"
        raise UsageError("T139", f"loss {loss.name}", problem, remedy) from error
    if not isinstance(losses, Tensor) or losses.shape != logps.chosen.shape:
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        problem = f"returned {shape} for {len(logps.chosen)} pairs"
        raise UsageError("T139", f"loss {loss.name}", problem, remedy)
    return losses
