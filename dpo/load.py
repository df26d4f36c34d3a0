"""Models and tokenizers from folders or the hub; code that a repository brings is never run."""

import hashlib
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from dpo.errors import UsageError
from prefdata.tokens.load import require_model

_LOADING_ERRORS = (OSError, ValueError, ImportError, LookupError, TypeError, AttributeError)


def load_model(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    dropout: bool = False,
) -> PreTrainedModel:
    """A causal LM, its dropout as the checkpoint has it or off."""
    config = load_config(name)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=dtype, trust_remote_code=False
        )
    except _LOADING_ERRORS as error:
        problem = f"its weights cannot be loaded ({_first_line(error)})"
        raise UsageError("T103", name, problem, "name a checkpoint with safetensors") from error
    if not dropout:
        _switch_off_dropout(model)
    model.train(mode=False)
    if device is not None:
        torch.nn.Module.to(model, device)
    return model


def load_config(name: str) -> Any:
    """The config of a model that the installed transformers can build as a causal LM."""
    require_model(name, partial(UsageError, "T101", name))
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        problem = f"has no config that transformers knows ({_first_line(error)})"
        remedy = "name a model whose architecture the installed transformers has"
        raise UsageError("T102", name, problem, remedy) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        problem = f"{config.model_type} has no causal language model in transformers"
        raise UsageError("T102", name, problem, "name a decoder model")
    return config


def _switch_off_dropout(model: PreTrainedModel) -> None:
    """Set every rate to 0 in the modules, so that the config which is saved keeps its own."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def checkpoint_layers(model: PreTrainedModel, *, place: str) -> None:
    """Let the layers keep their inputs alone, and run again in the backward pass."""
    if not model.supports_gradient_checkpointing:
        problem = f"{type(model).__name__} cannot run its layers again"
        raise UsageError("T104", place, problem, "leave gradient_checkpointing out")
    model.activation_checkpointing_enable({"use_reentrant": False})


def weights_sha256(model: torch.nn.Module) -> str:
    """sha256 over the names, shapes and float32 values of all tensors, in order of name.

    Values are hashed as float32, so a checkpoint hashes the same in whatever dtype it is loaded
    that holds its values exactly.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}"


def best_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")
