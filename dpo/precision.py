"""Dtypes of matrix products, and the loss scale that keeps gradients in the range of fp16.

float16 ends at 65,504 and loses values below 6e-8. So the loss is multiplied by a scale, a power
of two, which is divided out of the gradients (https://arxiv.org/abs/1710.03740). A step whose
gradients overflow is run again at half the scale: it costs time, and no pairs.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import nn

Precision = Literal["no", "bf16", "fp16"]
Weights = Literal["float32", "bfloat16"]
"""Dtype in which weights are held."""
Quantize = Literal["nf4", "int8"]
"""Form in which linear layers of a frozen model are held: 4 bits per weight
(https://arxiv.org/abs/2305.14314), or 8."""

HELD: dict[Weights, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRODUCTS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FIRST_SCALE = 2.0**16
LAST_SCALE = 2.0**24
GROWS_AFTER = 2000
"""Steps without overflow, after which the scale is doubled, as torch's GradScaler does."""


def precision_of(device: torch.device) -> Precision:
    """Return the precision of products that a device runs by default: bf16 if it has it.

    Other products stay float32 and not TF32, whose 11 bits would round positions beyond 2,048.
    """
    is_half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if is_half else "no"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context with matrix products in a precision's dtype, weights and sums in float32."""
    return torch.autocast(device.type, PRODUCTS[precision], enabled=precision != "no")


class Scale(NamedTuple):
    """Loss scale, and the number of steps since it changed."""

    value: float
    steps: int = 0


class LossScale:
    """Dynamic loss scale of a run; always 1 unless the precision is fp16."""

    def __init__(
        self, precision: Precision, *, first: float = FIRST_SCALE, grows_after: int = GROWS_AFTER
    ) -> None:
        self.moves, self.grows_after = precision == "fp16", grows_after
        self.now = Scale(first if self.moves else 1.0)

    def divide_out(self, weights: Iterable[nn.Parameter]) -> None:
        """Divide the gradients of a scaled loss by the scale."""
        if not self.moves:
            return
        for weight in weights:
            if weight.grad is not None:
                weight.grad.mul_(1 / self.now.value)

    def halve(self) -> bool:
        """Halve the scale after an overflow; return False if it is 1, so not the cause."""
        if self.now.value <= 1.0:
            return False
        self.now = Scale(self.now.value / 2)
        return True

    def settle(self) -> None:
        """Count a step that was taken; double the scale after `grows_after` of them."""
        if not self.moves:
            return
        value, steps = self.now.value, self.now.steps + 1
        grows = steps == self.grows_after and value < LAST_SCALE
        self.now = Scale(value * 2) if grows else Scale(value, steps % self.grows_after)
