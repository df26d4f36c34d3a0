"""Training objective: one loss, or a weighted sum of several."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
)
from dpo.loss.beta_dpo import Margins, update_running_stats


class _Part(NamedTuple):
    name: str
    weight: float
    settings: Mapping[str, float]
    divergence: str
    alpha: float | None

    def __call__(self, logps: PairLogps, seen: Mapping[str, Margins]) -> Tensor:
        if self.name in STATEFUL:
            return self.weight * LOSSES[self.name](logps, seen.get(self.name), **self.settings)
        if self.divergence != "reverse_kl":
            logps = diverge(logps, self.divergence, self.alpha)
        if self.name in LOSSES:
            return self.weight * LOSSES[self.name](logps, **self.settings)
        return self.weight * self._own(logps)

    def _own(self, logps: PairLogps) -> Tensor:
        """Return the losses of a function that is not ours. Raises UsageError (T139)."""
        remedy = "return one loss for each pair"
        try:
            losses = find_loss(self.name)(logps, **self.settings)
        except Exception as error:  # a user's code may raise anything
            if is_of_memory(error):
                raise
            problem = f"raised {first_line(error)}"
            raise UsageError("T139", f"loss {self.name}", problem, remedy) from error
        if not isinstance(losses, Tensor) or losses.shape != logps.chosen.shape:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            problem = f"returned {shape} for {len(logps.chosen)} pairs"
            raise UsageError("T139", f"loss {self.name}", problem, remedy)
        return losses


class Objective(NamedTuple):
    """A weighted sum of losses, called like one loss."""

    parts: tuple[_Part, ...]
    seen: dict[str, Margins]
    """Running statistics of stateful losses: the only part of a run's state that a step's number
    and the weights do not contain, so checkpoints store it."""

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, (B,)."""
        return torch.stack([part(logps, self.seen) for part in self.parts]).sum(0)

    def update(self, logps: PairLogps) -> None:
        """Update the running statistics with a step's pairs, before its losses are computed."""
        for part in self.parts:
            if part.name in STATEFUL:
                momentum = part.settings["momentum"]
                now = update_running_stats(
                    self.seen.get(part.name), logps.margins.detach(), momentum=momentum
                )
                self.seen.update({} if now is None else {part.name: now})

    @property
    def is_coupled(self) -> bool:
        """Return whether a pair's loss depends on the other pairs of its step."""
        return any(couples_pairs(part.name) for part in self.parts)

    @property
    def needs_margins(self) -> str | None:
        """Return the name of the first loss that needs the data's margins, or None."""
        return next((part.name for part in self.parts if part.name in WITH_MARGINS), None)

    @property
    def beta(self) -> float:
        """Return the β of the logged rewards: that of the first loss that has one, else 1."""
        return next((part.settings["beta"] for part in self.parts if "beta" in part.settings), 1.0)


def make_objective(losses: Sequence[LossConfig]) -> Objective:
    """Return the objective that a config describes."""
    return Objective(
        tuple(
            _Part(loss.name, loss.weight, loss.settings, loss.divergence, loss.divergence_alpha)
            for loss in losses
        ),
        {},
    )
