"""Steps of weights that are held in bfloat16, which a step of 1e-6 would not move.

bfloat16 has 8 bits of precision: near 0.05 its neighbors are 2e-4 apart, and rounding to the
nearest drops every step below half of that. So each weight is stepped in float32, with moments in
float32, one tensor at a time, and rounded to one of its two neighbors at random, with chances by
which it is right on average (https://arxiv.org/abs/2010.06192). Gradients stay in bfloat16.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_LOW_BITS = 16
"""Bits of a float32 that bfloat16 drops."""


def step_in_float32(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimizer step bfloat16 weights in float32 and round them stochastically.

    Draws come from torch's generator: seed it before each step, equally on ranks with equal
    weights. A no-op if no weight is in bfloat16.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if any(weight.dtype == torch.bfloat16 for weight in weights):
        optimizer.step = partial(_step, optimizer, optimizer.step)  # type: ignore[method-assign, assignment]
        load = partial(_load, optimizer, optimizer.load_state_dict)
        optimizer.load_state_dict = load  # type: ignore[method-assign]


def _step(optimizer: torch.optim.Optimizer, plain: Callable[[], Any], _: None = None) -> None:
    """Step one weight after another, so that only one is held in float32."""
    groups = optimizer.param_groups
    members = [group["params"] for group in groups]
    try:
        for group in groups:
            group["params"] = []
        for group, weights in zip(groups, members, strict=True):
            for weight in weights:
                group["params"] = [weight]
                with _in_float32(weight):
                    plain()
            group["params"] = []
    finally:
        for group, weights in zip(groups, members, strict=True):
            group["params"] = weights


def _load(
    optimizer: torch.optim.Optimizer, plain: Callable[[Any], None], state: dict[str, Any]
) -> None:
    """Load a state with its moments in float32; torch casts them to the dtype of the weights."""
    plain(state)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for place, slots in state["state"].items():
        own = optimizer.state[weights[place]]
        for name, slot in slots.items():
            if isinstance(slot, Tensor) and slot.dtype == torch.float32:
                own[name] = slot.to(own[name].device)


@torch.no_grad()
def round_stochastically(tensor: Tensor) -> Tensor:
    """Return float32 values in bfloat16, each rounded up or down with chances by its distances.

    >>> halves = torch.full((10_000,), 1 + 2**-8)  # halfway between two neighbors
    >>> sorted(set(round_stochastically(halves).tolist()))
    [1.0, 1.0078125]
    """
    bits = tensor.view(torch.int32)
    drawn = torch.randint_like(bits, 1 << _LOW_BITS).add_(bits)
    return drawn.bitwise_and_(-1 << _LOW_BITS).view(torch.float32).to(torch.bfloat16)


@contextmanager
def _in_float32(weight: nn.Parameter) -> Iterator[None]:
    """Hold a weight and its gradient in float32; at the end, round it stochastically."""
    if weight.dtype != torch.bfloat16 or weight.grad is None:
        yield
        return
    held, gradient = weight.data, weight.grad
    weight.grad = None
    weight.data = held.float()
    weight.grad = gradient.float()
    try:
        yield
        held.copy_(round_stochastically(weight.data))
    finally:
        weight.grad = None
        weight.data = held
        weight.grad = gradient
