"""Low-rank adapters, trained instead of a model's own weights.

LoRA, https://arxiv.org/abs/2106.09685, and DoRA, https://arxiv.org/abs/2402.09353, by peft. A fresh
adapter changes nothing, so the policy starts as its reference, which is the model without it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dpo.config import LoraSettings
from dpo.errors import MODEL_ERRORS, UsageError
from dpo.model.adapters import has_adapter, hold_in_float32, require_peft
from dpo.model.load import load_model, tower_layers
from dpo.model.source import ModelSource
from dpo.precision import Quantize, Weights

ALL = "all-linear"
BYPASSED = "out_proj"
"""Projection after a convolution (Mamba), whose weight fused kernels read without its module."""


def add_lora(model: PreTrainedModel, settings: LoraSettings, *, seed: int) -> str | None:
    """Freeze the model and add an adapter, initialised by `seed`, or continue the one it has.

    Returns a notice if `all-linear` leaves out layers that cannot have one, else None.
    """
    if has_adapter(model):
        _continue(model, settings)
        return None
    peft = require_peft("lora")
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    left_out = not_adaptable(model) if targets == ALL else []
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        exclude_modules=[*left_out, *tower_layers(model)] or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    try:
        with _quiet():
            model.add_adapter(config)
    except ValueError as error:
        problem = " ".join(str(error).split())[:200]
        remedy = "name layers of the model that an adapter can have, or all-linear"
        raise UsageError("T127", "lora.targets", problem, remedy) from error
    hold_in_float32(model)
    if hasattr(model.get_output_embeddings(), "base_layer"):  # type: ignore[no-untyped-call]
        problem = "includes the head, whose log-probs are computed in tiles of its own weight"
        raise UsageError("T127", "lora.targets", problem, "leave the head out; all-linear does")
    if not left_out:
        return None
    ends = ", ".join(sorted({name.rpartition(".")[2] for name in left_out}))
    return f"lora: {len(left_out):,} layers get no adapter, as peft cannot adapt them: {ends}"


def not_adaptable(model: PreTrainedModel) -> list[str]:
    """Return the names of linear layers whose output an adapter's product cannot be added to.

    These compute something else than their product (routers, grouped projections), or are bypassed.
    """
    found = []
    for name, module in model.named_modules():
        parent, _, end = name.rpartition(".")
        if isinstance(module, torch.nn.Linear) and (
            (end == BYPASSED and hasattr(model.get_submodule(parent), "conv1d"))
            or not _is_linear(module)
        ):
            found.append(name)
    return found


@torch.no_grad()
def _is_linear(module: torch.nn.Linear) -> bool:
    """Return whether a layer computes W x + b; classes of a model may do more."""
    if type(module) is torch.nn.Linear or not module.weight.is_floating_point():  # quantized
        return True
    states = torch.ones(
        2, module.in_features, dtype=module.weight.dtype, device=module.weight.device
    )
    try:
        output = module(states)
    except MODEL_ERRORS:
        return False
    expected = torch.nn.functional.linear(states, module.weight, module.bias)
    return isinstance(output, torch.Tensor) and torch.equal(output, expected)


def _continue(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Train the adapter that a model has. Raises UsageError (T106) for settings unlike its own."""
    own: Any = model.peft_config["default"]
    has = {"r": own.r, "alpha": own.lora_alpha, "dora": own.use_dora, "rslora": own.use_rslora}
    has["targets"] = own.target_modules
    for name in has.keys() & settings.model_fields_set:
        wanted = getattr(settings, name)
        wanted = set(wanted) if isinstance(wanted, tuple) else wanted
        if wanted != has[name]:
            problem = f"is {wanted!r}, but the adapter that is continued has {has[name]!r}"
            raise UsageError("T106", f"lora.{name}", problem, "leave it out")
    own.inference_mode = False
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)
    for module in model.modules():
        drops: Any = getattr(module, "lora_dropout", None)
        if isinstance(drops, torch.nn.ModuleDict):
            rate = settings.dropout
            drops["default"] = torch.nn.Dropout(rate) if rate else torch.nn.Identity()


def save_adapter(model: PreTrainedModel, path: Path, weights: dict[str, Any] | None) -> None:
    """Write only the adapter, as peft loads it; from `weights` if the model is sharded."""
    with _quiet():
        model.save_pretrained(path, state_dict=weights)


def load_adapted(
    base: str, adapter: Path, *, weights: Weights | None = None, quantize: Quantize | None = None
) -> Any:
    """Load a base with a saved adapter, as peft does."""
    with _quiet():
        plain = load_model(ModelSource(base, weights=weights, quantize=quantize, is_bare=True))
        return require_peft("lora").PeftModel.from_pretrained(plain, adapter)


def merge_adapter(adapted: Any) -> PreTrainedModel:
    """Merge an adapter into its base: an ordinary model.

    If it adapts only one of two tied weights, such as the embedding, they are untied first.
    """
    model: PreTrainedModel = adapted.get_base_model()
    head = model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    for module in adapted.modules():
        layer = module.get_base_layer() if hasattr(module, "get_base_layer") else None
        if layer is not None and getattr(layer, "weight", None) is head:
            layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            model.config.tie_word_embeddings = False
    with _quiet():
        merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence peft's warnings: of a renamed function, and of tied layers, which are untied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
