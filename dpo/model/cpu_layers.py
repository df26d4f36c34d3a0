"""Linear layers of a model by oneDNN in both passes (dpo/model/cpu_products.py).

Letters in shapes: N rows, I inputs, O outputs.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from dpo.model.cpu_products import is_faster, is_for_onednn, multiply_add

LINEAR = (nn.Linear, Conv1D)
"""Layers that oneDNN can run, not their subclasses; the weight of the second is (in, out)."""


def use_onednn(model: nn.Module) -> None:
    """Run a model's float32 linear layers by oneDNN in both passes, from now on, if it is faster.

    A layer reads its weight anew in each pass, so the weight may change, or be gathered.
    """
    for layer in model.modules() if is_faster() else ():
        weight = getattr(layer, "weight", None)
        is_float = isinstance(weight, Tensor) and weight.dtype == torch.float32
        if type(layer) in LINEAR and is_float and "forward" not in vars(layer):
            vars(layer)["forward"] = partial(_run_layer, layer)


def runs_by_onednn(layer: nn.Module) -> bool:
    """Return whether `use_onednn` changed a layer."""
    return getattr(vars(layer).get("forward"), "func", None) is _run_layer


def weight_of(layer: Any) -> Tensor:
    """Return the weight of a linear layer as (out, in)."""
    weight: Tensor = layer.weight
    return weight if type(layer) is nn.Linear else weight.T


def _run_layer(layer: Any, x: Tensor) -> Tensor:
    """Run a layer by oneDNN if its input and weight are float32, else as always."""
    is_plain = is_for_onednn(x) and layer.weight.dtype == torch.float32
    if not is_plain or not x.numel() or x.ndim == 1 or torch.is_autocast_enabled("cpu"):
        found: Tensor = type(layer).forward(layer, x)
        return found
    weight_OI = weight_of(layer)
    # rows, since the operator returns a view of other shapes, which a model may not change in place
    rows: Tensor = _Linear.apply(x.flatten(0, -2), weight_OI, layer.bias)  # type: ignore[no-untyped-call]
    return rows.view(*x.shape[:-1], len(weight_OI))


class _Linear(torch.autograd.Function):
    """x @ weight.T + bias, with all three products by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_NI, weight_OI)
        return multiply_add(weight_OI, bias_O, x_NI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, weight_OI = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        d_weight = multiply_add(x_NI.T, None, grad_NO.T) if wants_weight else None
        d_x = multiply_add(weight_OI.T, None, grad_NO) if wants_x else None
        return d_x, d_weight, grad_NO.sum(0) if wants_bias else None
