"""What a run minimizes: one loss, or several with weights."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dpo.config import LossConfig
from dpo.loss import COUPLED, LOSSES, STATEFUL, WITH_MARGINS, PairLogps, diverge
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
        return self.weight * LOSSES[self.name](logps, **self.settings)


class Objective(NamedTuple):
    """A weighted sum of losses, called like one."""

    parts: tuple[_Part, ...]
    seen: dict[str, Margins]
    """What losses that remember have seen up to now: the only part of a run's state that a step's
    number and the weights do not hold, so checkpoints keep it."""

    def __call__(self, logps: PairLogps) -> Tensor:
        """The loss of each pair, (B,)."""
        return torch.stack([part(logps, self.seen) for part in self.parts]).sum(0)

    def update(self, logps: PairLogps) -> None:
        """Remember the pairs of a step, before its losses are asked for."""
        for part in self.parts:
            if part.name in STATEFUL:
                momentum = part.settings["momentum"]
                now = update_running_stats(
                    self.seen.get(part.name), logps.margins.detach(), momentum=momentum
                )
                self.seen.update({} if now is None else {part.name: now})

    @property
    def is_coupled(self) -> bool:
        """Whether the pairs of a step have to be seen together."""
        return any(part.name in COUPLED for part in self.parts)

    @property
    def needs_margins(self) -> str | None:
        """A loss of it that needs the data's margins."""
        return next((part.name for part in self.parts if part.name in WITH_MARGINS), None)

    @property
    def beta(self) -> float:
        """What rewards are counted with: the β of the first loss that has one, else 1."""
        return next((part.settings["beta"] for part in self.parts if "beta" in part.settings), 1.0)


def make_objective(losses: Sequence[LossConfig]) -> Objective:
    """The objective that a config describes."""
    return Objective(
        tuple(
            _Part(loss.name, loss.weight, loss.settings, loss.divergence, loss.divergence_alpha)
            for loss in losses
        ),
        {},
    )
