"""A model that computes in float32, whatever its weights are held in.

Checks compare with it, so that they are as exact for weights in bfloat16 or 4 bits as for those in
float32. Weights are cast layer by layer while the layer runs, so it takes the memory of one layer.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def is_float32(model: nn.Module) -> bool:
    """Return whether a model holds its weights in float32 or quantized, and computes in float32."""
    half = any(w.dtype in (torch.bfloat16, torch.float16) for w in model.parameters())
    dtypes = {getattr(module, "compute_dtype", None) for module in model.modules()}
    return not half and dtypes <= {None, torch.float32}


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Run a model's forward passes in float32 inside the block; no gradients."""
    if is_float32(model):
        yield
        return
    with ExitStack() as stack:
        for module in _parts(model, set(getattr(model, "_no_split_modules", None) or ())):
            held: list[Callable[[], None]] = []
            before = module.register_forward_pre_hook(partial(_widen, held))
            after = module.register_forward_hook(partial(_restore, held), always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        yield


def _parts(module: nn.Module, layers: set[str]) -> Iterator[nn.Module]:
    """Yield layers, and outside of them all modules with weights of their own."""
    if type(module).__name__ in layers:
        yield module
        return
    if next(module.parameters(recurse=False), None) is not None:
        yield module
    for child in module.children():
        yield from _parts(child, layers)


def _widen(held: list[Callable[[], None]], module: nn.Module, inputs: Any) -> Any:
    for weight in module.parameters():
        if weight.dtype in (torch.bfloat16, torch.float16) and not isinstance(weight, DTensor):
            held.append(partial(setattr, weight, "data", weight.data))
            weight.data = weight.data.float()
    for part in module.modules():
        if isinstance(dtype := getattr(part, "compute_dtype", None), torch.dtype):
            held.append(partial(setattr, part, "compute_dtype", dtype))
            part.compute_dtype = torch.float32  # type: ignore[assignment]
    return tuple(_wide(value) for value in inputs)


def _restore(held: list[Callable[[], None]], module: nn.Module, inputs: Any, output: Any) -> None:
    del module, inputs, output
    while held:
        held.pop()()


def _wide(value: Any) -> Any:
    is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value
