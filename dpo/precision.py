"""The dtypes of matrix products, and what keeps gradients inside the range of fp16.

float16 ends at 65,504 and loses what is below 6e-8, so its backward pass carries the loss times a
scale, a power of two, which is divided out again (https://arxiv.org/abs/1710.03740). A step whose
gradients overflow is run again at half the scale: it costs time, and no pairs.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import nn

Precision = Literal["no", "bf16", "fp16"]

PRODUCTS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FIRST_SCALE = 2.0**16
LAST_SCALE = 2.0**24
GROWS_AFTER = 2000
"""Steps without overflow, after which the scale is doubled, as torch's GradScaler does."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Matrix products in the dtype of a precision, weights and sums in float32."""
    return torch.autocast(device.type, PRODUCTS[precision], enabled=precision != "no")


class Scale(NamedTuple):
    """What the loss is multiplied by, and the steps since that changed."""

    value: float
    steps: int = 0


class LossScale:
    """The scale of a run, which moves with what its gradients do; 1 and still but for fp16."""

    def __init__(self, precision: Precision) -> None:
        self.moves = precision == "fp16"
        self.now = Scale(FIRST_SCALE if self.moves else 1.0)

    def divide_out(self, weights: Iterable[nn.Parameter]) -> None:
        """Give the gradients of a scaled loss their own size."""
        if not self.moves:
            return
        for weight in weights:
            if weight.grad is not None:
                weight.grad.mul_(1 / self.now.value)

    def halve(self) -> bool:
        """After an overflow; False where the scale is no reason for it."""
        if self.now.value <= 1.0:
            return False
        self.now = Scale(self.now.value / 2)
        return True

    def settle(self) -> None:
        """Count a step that was taken."""
        if not self.moves:
            return
        value, steps = self.now.value, self.now.steps + 1
        grows = steps == GROWS_AFTER and value < LAST_SCALE
        self.now = Scale(value * 2) if grows else Scale(value, steps % GROWS_AFTER)
