"""Models from directories or the hub, complete or refused; no code of a repository is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from dpo.errors import UsageError
from dpo.model.weights import (
    Loading,
    check_doubles,
    check_dtypes,
    check_files,
    check_finite,
    check_loading,
    refuse_adapter,
)
from prefdata.tokens.load import require_model

_LOADING_ERRORS = (
    OSError, ValueError, ImportError, LookupError, TypeError, AttributeError, RuntimeError,
    ArithmeticError, AssertionError, MemoryError, SafetensorError, StrictDataclassError,
)  # fmt: skip


def load_model(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    dropout: bool = False,
) -> PreTrainedModel:
    """Load a causal LM with exactly the tensors of its checkpoint; `dropout` keeps its rates.

    Raises UsageError for all that `check_model` finds, and for weights that are not finite (T196).
    """
    config = load_config(name)
    check_files(name)
    model = _load(name, config, dtype=dtype)
    check_finite(name, model)
    if not dropout:
        switch_off_dropout(model)
    model.train(mode=False)
    if device is not None:
        torch.nn.Module.to(model, device)
    return model


def check_model(name: str) -> PreTrainedModel:
    """Refuse a checkpoint that `load_model` would refuse, quickly and before any work.

    Returns the model without its weights. Names and shapes are read from the files' headers.
    Raises UsageError: T101 to T103, T190 to T195, T197.
    """
    config = load_config(name)
    check_files(name)
    return _load(name, config, dtype=torch.float32, device_map="meta")


def _load(name: str, config: Any, **options: Any) -> PreTrainedModel:
    """Load the model if its checkpoint has exactly the tensors it needs; open no pickle."""
    try:
        with _quiet():
            found: Any = AutoModelForCausalLM.from_pretrained(
                name, config=config, trust_remote_code=False, use_safetensors=True,
                ignore_mismatched_sizes=True, output_loading_info=True, **options,
            )  # fmt: skip
    except _LOADING_ERRORS as error:
        problem = f"cannot be loaded ({_said(error)})"
        remedy = "check its config.json, or name a checkpoint with complete safetensors"
        raise UsageError("T103", name, problem, remedy) from error
    model: PreTrainedModel = found[0]
    check_doubles(name, model)
    check_loading(name, Loading.of(found[1]))
    check_dtypes(name, model)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing its report, which becomes an error with a code."""
    before = logging.get_verbosity()
    logging.set_verbosity(40)  # logging.ERROR
    try:
        yield
    finally:
        logging.set_verbosity(before)


def load_config(name: str) -> Any:
    """Load the config of a model that the installed transformers can build as a causal LM."""
    require_model(name, partial(UsageError, "T101", name))
    try:
        refuse_adapter(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        problem = f"has no config that transformers knows ({_said(error)})"
        remedy = "correct its config.json, or name a model that the installed transformers knows"
        raise UsageError("T102", name, problem, remedy) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        problem = f"{config.model_type} has no causal language model in transformers"
        raise UsageError("T102", name, problem, "name a decoder model")
    return config


def switch_off_dropout(model: PreTrainedModel) -> None:
    """Set every rate to 0 in the modules only, so that the saved config keeps its own."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def checkpoint_layers(model: PreTrainedModel, *, place: str) -> None:
    """Switch on gradient checkpointing, or raise UsageError (T104)."""
    if not model.supports_gradient_checkpointing:
        problem = f"{type(model).__name__} does not support gradient checkpointing"
        raise UsageError("T104", place, problem, "leave gradient_checkpointing out")
    model.activation_checkpointing_enable({"use_reentrant": False})


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200].rstrip('.')}"


def best_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)  # its driver may be absent
    return found or torch.device("cpu")


def device_notice() -> str | None:
    """Return a notice if torch is built for an accelerator that it cannot use here, else None."""
    built = torch.accelerator.current_accelerator()
    if built is None or torch.accelerator.is_available():
        return None
    kind = built.type
    return f"torch is built for {kind}, but finds no {kind} device or no driver: runs on the CPU"
