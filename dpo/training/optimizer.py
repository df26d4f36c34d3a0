"""Optimizers, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dpo.config import OptimizerConfig
from dpo.errors import UsageError


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Return AdamW, or RMSprop as in appendix B of https://arxiv.org/abs/2305.18290.

    Raises UsageError (T129) if bitsandbytes is needed and not installed.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if config.name == "rmsprop":
        return torch.optim.RMSprop(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
    if config.name == "adamw_8bit":
        made: torch.optim.Optimizer = _bitsandbytes().optim.AdamW8bit(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        return made
    return torch.optim.AdamW(
        trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


@torch.no_grad()
def init_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the optimizer's moments as zeros, which it otherwise does in step 1.

    A step with rate 0 and gradients of 0 allocates them, weight by weight; then all state is
    zeroed, so that step 1 is unchanged. A no-op if moments exist or bitsandbytes keeps them.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # that accelerate has wrapped
    if optimizer.state or not isinstance(inner, torch.optim.AdamW | torch.optim.RMSprop):
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
            weight.grad = None
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for slots in optimizer.state.values():
        for slot in slots.values():
            slot.zero_()


def learning_rate(step: int, *, total: int, config: OptimizerConfig) -> float:
    """Return the rate of a step, counted from 1: linear warm-up from 0, then the schedule.

    >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, schedule="linear")
    >>> [round(learning_rate(n, total=8, config=config), 3) for n in (1, 4, 6, 8)]
    [0.25, 1.0, 0.6, 0.2]
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / (total - config.warmup_steps + 1)
    share = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes  # optional, and large
    except ImportError as error:
        problem, remedy = "needs bitsandbytes, which is not installed", "pip install bitsandbytes"
        raise UsageError("T129", "optimizer.name: adamw_8bit", problem, remedy) from error
    return bitsandbytes
