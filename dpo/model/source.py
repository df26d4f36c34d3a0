"""A model by its names: the checkpoint, an adapter on it, and how their weights are held.

A name is a checkpoint, an adapter, whose config names its checkpoint, or a directory with both. It
means the same in every command, whether peft is installed or not: without it, an adapter is an
error.
"""

from pathlib import Path
from typing import Any, NamedTuple

import orjson
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from dpo.errors import UsageError
from dpo.precision import Quantize, Weights
from prefdata.tokens.load import VOCABULARIES, is_hub_name

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_MERGE = "merge the adapter (peft: merge_and_unload, then save_pretrained) and name the result"


class ModelSource(NamedTuple):
    """A model to load, and how to hold its weights."""

    name: str
    adapter: str | None = None
    """An adapter on it; None if `name` is or has one itself, or there is none."""
    weights: Weights | None = None
    """Dtype; None is float32, or, for frozen and quantized weights, bfloat16 if the checkpoint has
    it."""
    quantize: Quantize | None = None
    is_frozen: bool = False
    """True if the weights are those of a base under an adapter in training."""
    is_bare: bool = False
    """True to ignore an adapter in the same directory as the checkpoint."""


class Parts(NamedTuple):
    """Where the parts of a model are."""

    base: str
    """Checkpoint: a directory, or a name on the Hub."""
    adapter: Path | None
    tokenizer: str
    """Where its tokenizer is: next to the adapter if one is there."""


def as_source(model: str | ModelSource) -> ModelSource:
    return ModelSource(model) if isinstance(model, str) else model


def find_parts(model: str | ModelSource) -> Parts:
    """Return a model's checkpoint and adapter. Raises UsageError (T190) if they are not clear."""
    source = as_source(model)
    own = None if source.is_bare else adapter_folder(source.name)
    if source.adapter is not None:
        given = adapter_folder(source.adapter)
        if given is None:
            problem, remedy = f"has no {CONFIG}", "name the directory of a LoRA adapter"
            raise UsageError("T190", source.adapter, problem, remedy)
        if own is not None and not own.samefile(given):
            problem = f"has an adapter itself, so {source.adapter} would be a second one"
            raise UsageError("T190", source.name, problem, f"name one of them; or {_MERGE}")
        if own is None:
            return _checked(Parts(source.name, given, source.name))
    if own is None:
        return Parts(source.name, None, source.name)
    if Path(source.name).is_dir() and _is_checkpoint(own):
        return _checked(Parts(source.name, own, source.name))
    has_tokenizer = any(next(own.glob(name), None) for name in VOCABULARIES)
    base = _base_of(source.name, own)
    return _checked(Parts(base, own, source.name if has_tokenizer else base))


def adapter_folder(name: str) -> Path | None:
    """Return the directory of an adapter, perhaps one that is with a checkpoint, or None."""
    folder = Path(name)
    if folder.is_dir():
        found = any((folder / file).exists() for file in (CONFIG, WEIGHTS, _PICKLE))
        return folder if found else None
    if not is_hub_name(name) or (config := find_adapter_config_file(name)) is None:
        return None
    return Path(config).parent


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Return an adapter's config. Raises UsageError (T190) unless it is that of a LoRA adapter."""
    path = folder / CONFIG
    try:
        config = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        problem = "is absent, or is not JSON"
        remedy = "copy the adapter again, or move its files elsewhere to use only the model"
        raise UsageError("T190", str(path), problem, remedy) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        problem = f"is not the config of a LoRA adapter (peft_type {kind!a})"
        raise UsageError("T190", str(path), problem, _MERGE)
    found: dict[str, Any] = config
    return found


def _checked(parts: Parts) -> Parts:
    """Refuse an adapter that cannot be read: of another kind, a pickle, or not there."""
    folder = parts.adapter
    assert folder is not None
    if read_adapter_config(folder).get("modules_to_save"):
        problem = "trains whole modules (modules_to_save), which an adapter here cannot have"
        raise UsageError("T190", str(folder / CONFIG), problem, _MERGE)
    if not Path(parts.base).is_dir() and not is_hub_name(parts.base):
        raise UsageError("T190", parts.base, "is not a checkpoint", "name the base model")
    if folder.parent.name == "snapshots":  # the Hub's cache has only the files that were asked for
        cached_file(parts.tokenizer, WEIGHTS, _raise_exceptions_for_missing_entries=False)
    if not (folder / WEIGHTS).is_file():
        found = f"has only a pickle ({_PICKLE})" if (folder / _PICKLE).exists() else "has none"
        remedy = "load it with peft and save_pretrained, or copy it again"
        raise UsageError("T190", str(folder), f"{found} of its weights, no {WEIGHTS}", remedy)
    return parts


def _is_checkpoint(folder: Path) -> bool:
    files = ("model.safetensors", "model.safetensors.index.json")
    return any((folder / file).exists() for file in files)


def _base_of(name: str, folder: Path) -> str:
    """Return the checkpoint that an adapter's config names."""
    base = read_adapter_config(folder).get("base_model_name_or_path")
    remedy = "name the model, and this adapter with it (dpo-train: lora.start; others: --adapter)"
    if not isinstance(base, str) or not base:
        raise UsageError("T190", name, "is an adapter, and does not say of which model", remedy)
    if not Path(base).is_dir() and not is_hub_name(base):
        problem = f"is an adapter of {base}, which is not here"
        raise UsageError("T190", name, problem, remedy)
    if adapter_folder(base) is not None:
        problem = f"is an adapter of {base}, which has an adapter itself"
        raise UsageError("T190", name, problem, _MERGE)
    return base
