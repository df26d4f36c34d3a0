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
    """AdamW, or RMSprop as in appendix B of https://arxiv.org/abs/2305.18290.

    Raises UsageError (T129) where bitsandbytes is wanted and not installed.
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


def learning_rate(step: int, *, total: int, config: OptimizerConfig) -> float:
    """The rate of a step, counted from 1: linear warm-up from 0, then the schedule.

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
