"""Float32 products by oneDNN on a CPU: linear layers in both passes, and the head's tiles.

torch gives float32 products to MKL, which uses half the vector width of AMD's processors; oneDNN
uses all of it. On an EPYC with AVX-512, one thread, 1,024 rows of SmolLM2's layers: 108 GFLOP/s by
torch in both passes, 240 by oneDNN.

Letters in shapes: N rows, I inputs, O outputs.
"""

from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CPU_INFO = Path("/proc/cpuinfo")


@cache
def is_faster() -> bool:
    """Return whether oneDNN multiplies float32 faster than torch: AMD's processors with AVX-512."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    is_wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return is_wide and _CPU_INFO.exists() and "AuthenticAMD" in _CPU_INFO.read_text()


def multiply(left_NI: Tensor, right_OI: Tensor) -> Tensor:
    """Return left @ right.T, (N, O), by oneDNN if that is faster; has no gradient there."""
    if left_NI.dtype == torch.float32 and left_NI.device.type == "cpu" and is_faster():
        return _multiply(left_NI, right_OI)
    return left_NI @ right_OI.T


def train_by_onednn(model: nn.Module) -> None:
    """Run a model's float32 linear layers by oneDNN in both passes, from now on, if it is faster.

    A layer reads its weight anew in each pass, so the weight may change, or be gathered.
    """
    for layer in model.modules() if is_faster() else ():
        weight = getattr(layer, "weight", None)
        is_float = isinstance(weight, Tensor) and weight.dtype == torch.float32
        if type(layer) is nn.Linear and is_float and "forward" not in vars(layer):
            vars(layer)["forward"] = partial(_run_layer, layer)


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
        d_weight = _multiply(grad_NO.T, x_NI.T) if wants_weight else None
        d_x = _multiply(grad_NO, weight_OI.T) if wants_x else None
        return d_x, d_weight, grad_NO.sum(0) if wants_bias else None


def _run_layer(layer: nn.Linear, x: Tensor) -> Tensor:
    """Run a layer by oneDNN if its input and weight are float32, else as torch does."""
    weight = layer.weight
    is_plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    if not is_plain or not x.numel() or x.ndim == 1 or torch.is_autocast_enabled("cpu"):
        return nn.functional.linear(x, weight, layer.bias)
    # rows, since the operator returns a view of other shapes, which a model may not change in place
    found: Tensor = _Linear.apply(x.flatten(0, -2), weight, layer.bias)  # type: ignore[no-untyped-call]
    return found.view(*x.shape[:-1], len(weight))


def runs_by_onednn(layer: nn.Module) -> bool:
    """Return whether `train_by_onednn` changed a layer."""
    return getattr(vars(layer).get("forward"), "func", None) is _run_layer


def _multiply(left: Tensor, right_OI: Tensor) -> Tensor:
    return multiply_add(right_OI, None, left)


def multiply_add(weight_OI: Tensor, bias_O: Tensor | None, x: Tensor) -> Tensor:
    """Return x @ weight.T + bias by oneDNN, (…, O); the weight may be in its own layout."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
    return found
