"""Linear layers of a CPU model by oneDNN, for passes without gradients.

torch gives float32 products to MKL, which uses half the vector width of AMD's processors; oneDNN
uses all of it. With few rows, most of the rest is the weights' way through the caches, for which
oneDNN has a layout of its own. On an EPYC with AVX-512, one thread and 32 rows: 76 GFLOP/s by
torch, 136 by oneDNN, 191 with weights in its layout; in bfloat16 241, 261 and 314.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

ROWS = 64
"""Rows for which weights are laid out; other numbers run too."""
LAID_OUT = 4 * 2**30
"""Bytes of weights up to which a second copy in oneDNN's layout is made."""


class CpuLinears:
    """Forward passes of a model's linear layers by oneDNN; its weights must not change meanwhile.

    Layers of other kinds, dtypes and devices run as always.
    """

    def __init__(self, model: nn.Module, laid_out: int = LAID_OUT) -> None:
        self.weights: dict[nn.Module, Tensor] = dict(_find(model))
        if sum(weight.nbytes for weight in self.weights.values()) <= laid_out:
            for layer, weight in self.weights.items():
                self.weights[layer] = _op("_reorder_linear_weight")(weight, ROWS)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the layers by oneDNN within this context."""
        for layer, weight in self.weights.items():
            bias: Any = layer.bias
            vars(layer)["forward"] = partial(_forward, weight, bias)
        try:
            yield
        finally:
            for layer in self.weights:
                del vars(layer)["forward"]


def _find(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the layers that oneDNN can run, with their weights as (out, in)."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for layer in model.modules():
        if type(layer) not in (nn.Linear, Conv1D) or "forward" in vars(layer):
            continue
        weight: Any = layer.weight
        if weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16):
            data = weight.detach()
            yield layer, data if type(layer) is nn.Linear else data.t().contiguous()


def _forward(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    found: Tensor = _op("_linear_pointwise")(x, weight, bias, "none", [], "")
    return found


def _op(name: str) -> Any:
    return getattr(torch.ops.mkldnn, name)
