"""Linear layers with weights in oneDNN's own layout, for passes with few rows on a CPU.

With few rows, most of a product's time is the weights' way through the caches. On an EPYC with
AVX-512, one thread and 32 rows: 76 GFLOP/s by torch, 136 by oneDNN, 191 with weights in its layout;
in bfloat16 241, 261 and 314.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpo.model.cpu_layers import LINEAR, runs_by_onednn, weight_of
from dpo.model.cpu_products import multiply_add

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
        self.before = {layer: vars(layer).get("forward") for layer in self.weights}
        if sum(weight.nbytes for weight in self.weights.values()) <= laid_out:
            for layer, weight in self.weights.items():
                self.weights[layer] = _lay_out(weight)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the layers by oneDNN within this context."""
        for layer, weight in self.weights.items():
            bias: Any = layer.bias
            vars(layer)["forward"] = partial(multiply_add, weight, bias)
        try:
            yield
        finally:
            for layer, forward in self.before.items():
                del vars(layer)["forward"]
                if forward is not None:
                    vars(layer)["forward"] = forward


def _find(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the layers that oneDNN can run, with their weights as (out, in)."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for layer in model.modules():
        is_free = "forward" not in vars(layer) or runs_by_onednn(layer)
        if type(layer) not in LINEAR or not is_free:
            continue
        weight_OI = weight_of(layer).detach()
        if weight_OI.device.type == "cpu" and weight_OI.dtype in (torch.float32, torch.bfloat16):
            yield layer, weight_OI.contiguous()


def _lay_out(weight_OI: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI, ROWS)
    return found
