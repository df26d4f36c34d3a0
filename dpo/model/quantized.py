"""Frozen linear layers in 4 or 8 bits per weight, by bitsandbytes.

A layer's weight is dequantized for each product, so its log-probs depend neither on the other
texts of a pack nor on whether the model is in training. Two of bitsandbytes' shortcuts would break
this and are off: products of 8-bit activations, whose outliers are chosen per batch, and the form
in which a CPU with AVX-512 keeps 4-bit weights for inference, which rounds their scales.
"""

import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig

from dpo.errors import UsageError
from dpo.precision import Quantize


def is_quantized(config: Any) -> bool:
    """Return whether the weights of a checkpoint are stored quantized, by its config."""
    return getattr(config, "quantization_config", None) is not None


def require_bitsandbytes(place: str) -> Any:
    """Import bitsandbytes. Raises UsageError (T129) if it is not installed."""
    try:
        import bitsandbytes  # optional, and large
    except ImportError as error:
        remedy = "pip install 'prefdata-dpo[train,quantize]'"
        problem = "needs bitsandbytes, which is not installed"
        raise UsageError("T129", place, problem, remedy) from error
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of kernels that are not used
    return bitsandbytes


def quantization(kind: Quantize, dtype: torch.dtype) -> Any:
    """Return transformers' config of a quantization, with products in `dtype`."""
    require_bitsandbytes(f"quantize: {kind}")
    make: Any = BitsAndBytesConfig
    if kind == "int8":
        return make(load_in_8bit=True)
    return make(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def dequantize_in_products(model: torch.nn.Module) -> None:
    """Switch off bitsandbytes' shortcuts in all layers of a model that has some."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        elif type(module).__name__ == "Linear8bitLt":
            module.forward = partial(_linear_8bit, module)


def _linear_8bit(layer: Any, x: Tensor) -> Tensor:
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    product: Tensor = _Product.apply(x, layer.weight)  # type: ignore[no-untyped-call]
    return product if layer.bias is None else product + layer.bias.to(product.dtype)


class _Product(torch.autograd.Function):
    """x Wᵀ with W in 8 bits, dequantized again in the backward pass instead of kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Any) -> Tensor:
        ctx.weight = weight
        return x @ _dequantized(weight, x.dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ _dequantized(ctx.weight, grads[0].dtype), None


def _dequantized(weight: Any, dtype: torch.dtype) -> Tensor:
    scaled: Tensor = weight.CB.float() * (weight.SCB.float() / 127)[:, None]
    return scaled.to(dtype)
