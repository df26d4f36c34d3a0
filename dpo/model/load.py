"""Models from directories or the hub, complete or refused; no code of a repository is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.utils import logging

from dpo.errors import DpoError, TrainingError, UsageError, is_of_memory
from dpo.model.adapters import load_adapter, require_peft, without_adapter
from dpo.model.quantized import (
    dequantize_in_products,
    is_quantized,
    quantization,
    require_bitsandbytes,
)
from dpo.model.source import ModelSource, Parts, as_source, find_parts
from dpo.model.weights import (
    Loading,
    check_doubles,
    check_dtypes,
    check_files,
    check_finite,
    check_loading,
    model_folder,
    stored_dtype,
)
from dpo.precision import HELD, Weights
from prefdata.tokens.load import require_model

_TEXT, _WITH_IMAGES = AutoModelForCausalLM, AutoModelForImageTextToText
_LOADING_ERRORS = (
    OSError, ValueError, ImportError, LookupError, TypeError, AttributeError, RuntimeError,
    ArithmeticError, AssertionError, MemoryError, SafetensorError, StrictDataclassError,
)  # fmt: skip


def load_model(
    source: str | ModelSource, *, device: torch.device | None = None, dropout: bool = False
) -> PreTrainedModel:
    """Load a causal LM with exactly the tensors of its checkpoint; `dropout` keeps its rates.

    An adapter is added as layers of its own, frozen. Raises UsageError for all that `check_model`
    finds, and for weights that are not finite (T196).
    """
    source = as_source(source)
    parts = find_parts(source)
    config = load_config(parts.base)
    check_files(parts.base)
    dtype = HELD[held_in(source)]
    options: dict[str, Any] = {}
    if source.quantize is not None:
        options["quantization_config"] = quantization(source.quantize, dtype)
    if options or is_quantized(config):
        options["device_map"] = {"": device or torch.device("cpu")}
    model = _load(parts, config, dtype=dtype, **options)
    dequantize_in_products(model)
    if parts.adapter is not None:
        load_adapter(model, parts.adapter)
    check_finite(source.name, model)
    freeze_towers(model)
    if not dropout:
        switch_off_dropout(model)
    model.train(mode=False)
    if device is not None and "device_map" not in options:
        _move(model, device, source.name)
    return model


def load_reward_model(name: str, device: torch.device) -> PreTrainedModel:
    """Load a sequence classifier with one output and exactly the tensors of its checkpoint.

    Weights are float32 on a CPU, elsewhere as they are stored. Raises UsageError as `load_model`
    does, and T166 for a model that gives no reward.
    """
    parts, config = find_parts(name), _read_config(name)
    remedy = "name a checkpoint for sequence classification with one output (num_labels 1)"
    if parts.adapter is not None:
        raise UsageError("T166", name, "is an adapter", "merge it with its base, and name that")
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        problem = f"{config.model_type} has no sequence classifier in transformers"
        raise UsageError("T166", name, problem, remedy)
    if config.num_labels != 1:
        raise UsageError("T166", name, f"has {config.num_labels} outputs, not one", remedy)
    check_files(name)
    dtype = torch.float32 if device.type == "cpu" else stored_dtype(model_folder(name))
    model = _load(parts, config, AutoModelForSequenceClassification, dtype=dtype)
    check_finite(name, model)
    model.train(mode=False)
    _move(model, device, name)
    return model


def _move(model: PreTrainedModel, device: torch.device, name: str) -> None:
    """Move a model to a device. Raises TrainingError (T304) if it does not fit."""
    try:
        torch.nn.Module.to(model, device)
    except (RuntimeError, MemoryError) as error:
        if not is_of_memory(error):
            raise
        raise _not_made(name, error) from error


def check_model(source: str | ModelSource) -> PreTrainedModel:
    """Refuse a checkpoint that `load_model` would refuse, quickly and before any work.

    Returns the model without its weights. Names and shapes are read from the files' headers; those
    of quantized weights are checked when they are loaded. Raises UsageError: T101 to T103, T105,
    T128, T129, T190 to T195, T197.
    """
    source = as_source(source)
    parts = find_parts(source)
    config = load_config(parts.base)
    check_files(parts.base)
    if parts.adapter is not None:
        require_peft(str(parts.adapter))
    if not is_quantized(config):
        if source.quantize is not None:
            require_bitsandbytes(f"quantize: {source.quantize}")
        return _load(parts, config, dtype=torch.float32, device_map="meta")
    if source.quantize is not None:
        problem = f"is quantized already, so quantize: {source.quantize} would do it twice"
        raise UsageError("T105", source.name, problem, "leave quantize out")
    return _without_weights(parts.base, config)


def require_trainable(source: ModelSource) -> None:
    """Refuse to train all weights of a quantized checkpoint (T105)."""
    if not source.is_frozen and is_quantized(load_config(find_parts(source).base)):
        problem = "has quantized weights, which cannot be trained"
        remedy = "set `lora` to train an adapter on them, or name the model that was quantized"
        raise UsageError("T105", source.name, problem, remedy)


def held_in(source: ModelSource) -> Weights:
    """Return the dtype in which a model's weights are held."""
    if source.weights is not None:
        return source.weights
    base = find_parts(source).base
    own = source.is_frozen or source.quantize is not None or is_quantized(load_config(base))
    is_half = own and stored_dtype(model_folder(base)) == torch.bfloat16
    return "bfloat16" if is_half else "float32"


def _without_weights(name: str, config: Any) -> PreTrainedModel:
    """Return a quantized checkpoint's model as it would be in floating point numbers, empty."""
    method = config.quantization_config
    method = method.get("quant_method") if isinstance(method, dict) else method.quant_method
    method = getattr(method, "value", method)
    if str(method) not in AUTO_QUANTIZER_MAPPING and "bitsandbytes" not in str(method):
        raise _not_made(name, ValueError(f"its quantization has the method {method!r}"))
    if "bitsandbytes" in str(method):
        require_bitsandbytes(name)
    plain = type(config).from_dict({**config.to_dict(), "quantization_config": None})
    try:
        with torch.device("meta"):
            model: PreTrainedModel = model_class(plain).from_config(plain)
    except _LOADING_ERRORS as error:
        raise _not_made(name, error) from error
    return model


def _load(parts: Parts, config: Any, kind: Any = None, **options: Any) -> PreTrainedModel:
    """Load the model if its checkpoint has exactly the tensors it needs; open no pickle."""
    name, kind = parts.base, kind or model_class(config)
    try:
        with _quiet(), without_adapter(name) as place:
            found: Any = kind.from_pretrained(
                place, config=config, trust_remote_code=False, use_safetensors=True,
                ignore_mismatched_sizes=True, output_loading_info=True, **options,
            )  # fmt: skip
    except _LOADING_ERRORS as error:
        raise _not_made(name, error) from error
    model: PreTrainedModel = found[0]
    model.name_or_path = model.config._name_or_path = name
    check_doubles(name, model)
    check_loading(name, Loading.of(found[1]))
    check_dtypes(name, model)
    return model


def _not_made(name: str, error: Exception) -> DpoError:
    if is_of_memory(error):
        problem = f"its weights do not fit into memory ({_said(error)})"
        remedy = (
            "use lora, which can hold them in bfloat16 (weights) or in 4 bits (quantize: nf4), or"
            " shard them over several devices (fsdp2.yaml)"
        )
        return TrainingError("T304", name, problem, remedy)
    problem = f"cannot be loaded ({_said(error)})"
    remedy = "check its config.json, or name a checkpoint with complete safetensors"
    return UsageError("T103", name, problem, remedy)


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
    config = _read_config(name)
    if all(type(config) not in kind._model_mapping for kind in (_TEXT, _WITH_IMAGES)):
        problem = f"{config.model_type} has no causal language model in transformers"
        raise UsageError("T102", name, problem, "name a decoder model")
    return config


def _read_config(name: str) -> Any:
    require_model(name, partial(UsageError, "T101", name))
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except _LOADING_ERRORS as error:
        problem = f"has no config that transformers knows ({_said(error)})"
        remedy = "correct its config.json, or name a model that the installed transformers knows"
        raise UsageError("T102", name, problem, remedy) from error


def model_class(config: Any) -> Any:
    """Return the kind of model that a checkpoint was saved from: for text, or images and text.

    One for images and text keeps its towers, so that it is saved as it came.
    """
    kinds: Any = _WITH_IMAGES._model_mapping
    if type(config) not in kinds:
        return _TEXT
    is_own = kinds[type(config)].__name__ in (config.architectures or ())
    return _WITH_IMAGES if is_own or type(config) not in _TEXT._model_mapping else _TEXT


def freeze_towers(model: PreTrainedModel) -> None:
    """Freeze what texts do not run through: the towers of a model for images and text."""
    for weight in _tower_weights(model):
        weight.requires_grad = False


def tower_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of linear layers in the towers, which get no adapter."""
    frozen = {id(weight) for weight in _tower_weights(model)}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) in frozen
    ]


def _tower_weights(model: PreTrainedModel) -> Iterator[torch.nn.Parameter]:
    config: Any = model.config
    kinds: Any = _WITH_IMAGES._model_mapping
    if type(config) not in kinds or not isinstance(model, kinds[type(config)]):
        return
    text = [model.get_decoder(), model.get_output_embeddings(), model.get_input_embeddings()]
    used = {id(weight) for part in text if part is not None for weight in part.parameters()}
    yield from (weight for weight in model.parameters() if id(weight) not in used)


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
