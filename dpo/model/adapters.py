"""Adapters from disk, as layers of a model."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel

from dpo.errors import UsageError
from dpo.model.source import adapter_folder
from dpo.model.weights import model_folder


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Add an adapter's layers to a model, frozen and in float32.

    Raises UsageError (T107) unless its tensors are exactly those that its config asks for.
    """
    require_peft(str(folder))
    place = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft calls a renamed function
            found: Any = model.load_adapter(place, is_trainable=False, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        problem = (
            f"cannot be added to {type(model).__name__} ({' '.join(str(error).split())[:200]})"
        )
        raise UsageError("T107", place, problem, "name the model that it was made for") from error
    wrong = sorted(map(str, [*found.missing_keys, *found.unexpected_keys, *found.mismatched_keys]))
    if wrong:
        problem = f"has other tensors than its config and {type(model).__name__} need: {wrong[0]}"
        raise UsageError("T107", place, problem, "name the model that it was made for")
    model.peft_config["default"].base_model_name_or_path = model.name_or_path
    model.requires_grad_(requires_grad=False)
    hold_in_float32(model)


def has_adapter(model: PreTrainedModel) -> bool:
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def absorb_adapter(model: PreTrainedModel) -> None:
    """Add an adapter's product to the weights that it adapts, and remove its layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # optional

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    model.requires_grad_(requires_grad=True)


def hold_in_float32(model: torch.nn.Module) -> None:
    """Hold the layers of adapters in float32, so that small steps move them."""
    for name, weight in model.named_parameters():
        if "lora_" in name and weight.is_floating_point():
            weight.data = weight.data.float()


def require_peft(place: str) -> Any:
    """Import peft. Raises UsageError (T128) if it is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it if it is there
    try:
        import peft  # optional, and the import takes a second
    except ImportError as error:
        remedy = "pip install 'prefdata-dpo[train]'"
        raise UsageError("T128", place, "needs peft, which is not installed", remedy) from error
    return peft


@contextmanager
def without_adapter(name: str) -> Iterator[str]:
    """Yield a place from which to load a checkpoint, without an adapter in the same directory.

    transformers would apply it if peft is installed.
    """
    if adapter_folder(name) is None:
        yield name
        return
    with TemporaryDirectory(prefix="dpo-") as view:
        for file in model_folder(name).iterdir():
            if not file.name.startswith("adapter_"):
                (Path(view) / file.name).symlink_to(file.resolve())
        yield view
