"""A model in the form of its base checkpoint: the same files, config and names, other weights.

    config.json             the base's; only its dtype, tie and quantization may change
    model.safetensors       names and dtypes of the base; several files above `max_shard_size`
    tokenizer.json, …       of the base, byte for byte

Tensors of the base that the model does not have, such as layers for multi-token prediction, are
copied from it.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from dpo.model.weights import weight_files
from dpo.saving_config import SaveConfig

_COPIED = (
    *("tokenizer*.json", "tokenizer*.model", "*.model", "*.tiktoken", "tekken.json", "vocab*"),
    *("merges.txt", "*.vocab", "special_tokens_map.json", "added_tokens.json", "*.bpe"),
    *("chat_template*", "additional_chat_templates/*", "generation_config.json"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("LICENSE*", "NOTICE*", "USE_POLICY*"),
)
"""Files of a base that belong to every model made from it."""
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
_KEYS = ("dtype", "torch_dtype")


class Base(NamedTuple):
    """Files of a base checkpoint."""

    folder: Path
    config: dict[str, Any]
    stored: dict[str, Path]
    """File of each tensor."""
    dtypes: dict[str, torch.dtype]
    """Dtype of each tensor that is stored as floating point numbers of 16 bits or more."""
    tokenizer: Path | None = None
    """Directory whose tokenizer is used, if it is not that of the checkpoint."""

    def common_dtype(self) -> torch.dtype:
        """Return the dtype that the config names, else that of most tensors."""
        named = next((self.config[key] for key in _KEYS if self.config.get(key)), None)
        found = getattr(torch, str(named), None)
        if isinstance(found, torch.dtype) and found.is_floating_point:
            return found
        kinds = list(self.dtypes.values()) or [torch.float32]
        return max(set(kinds), key=kinds.count)


def open_base(name: str) -> Base:
    """Return the files of a checkpoint's directory or of a hub name."""
    folder = Path(name)
    if not folder.is_dir():
        patterns = ["config.json", "*.safetensors", "*.safetensors.index.json", *_COPIED]
        folder = Path(snapshot_download(name, allow_patterns=patterns))
    stored: dict[str, Path] = {}
    dtypes: dict[str, torch.dtype] = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            for tensor in opened.keys():  # noqa: SIM118 — not a dict
                stored[tensor] = file
                kind = _DTYPES.get(opened.get_slice(tensor).get_dtype())
                dtypes |= {} if kind is None else {tensor: kind}
    return Base(folder, orjson.loads((folder / "config.json").read_bytes()), stored, dtypes)


def copy_files(base: Base, out: Path) -> None:
    """Copy the files of a base that do not depend on its weights, byte for byte."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in filter(None, (base.folder, base.tokenizer)):
        for file in sorted({file for glob in _COPIED for file in folder.glob(glob)}):
            if not file.is_file():
                continue
            target = out / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def write_like_base(
    model: PreTrainedModel, weights: Mapping[str, Tensor], base: Base, out: Path, save: SaveConfig
) -> None:
    """Write a model's tensors as a checkpoint in the form of its base.

    `weights` are the model's state dict; values are rounded while their file is written.
    """
    copy_files(base, out)
    (out / "config.json").write_bytes(_config(model, base, save))
    own = _as_stored(model, weights, base)
    copied = {name: base.stored[name] for name in _kept_from_base(model, own, base)}
    wanted = None if save.dtype is None else getattr(torch, save.dtype)
    common = base.common_dtype()

    def shape(name: str, tensor: Tensor) -> Tensor:
        dtype = base.dtypes.get(name) or (tensor.dtype if name in copied else common)
        dtype = (wanted or dtype) if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=dtype, device="meta")

    everything = {**own, **{name: _meta(file, name) for name, file in copied.items()}}
    shapes = {name: shape(name, tensor) for name, tensor in everything.items()}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=save.max_shard_size)
    for file, names in split.filename_to_tensors.items():
        part = {}
        for name in names:
            tensor = _read(copied[name], name) if name in copied else own[name].detach()
            part[name] = tensor.to("cpu", shapes[name].dtype).contiguous()
        save_file(_apart(part), out / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        data = orjson.dumps(index, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        (out / "model.safetensors.index.json").write_bytes(data + b"\n")


def _config(model: PreTrainedModel, base: Base, save: SaveConfig) -> bytes:
    """Return the base's config.json; unchanged if nothing in it has to change."""
    config: dict[str, Any] = orjson.loads(orjson.dumps(base.config))
    quantized = config.pop("quantization_config", None) is not None
    parts = [config, *(value for value in config.values() if isinstance(value, dict))]
    for part in parts:
        if save.dtype is not None:
            part |= {key: save.dtype for key in _KEYS if key in part}
        if part.get("tie_word_embeddings") and not model.config.tie_word_embeddings:
            part["tie_word_embeddings"] = False
    if not model.config.tie_word_embeddings and base.config.get("tie_word_embeddings") is None:
        config["tie_word_embeddings"] = False  # its class ties by default
    if config == base.config and not quantized:
        return (base.folder / "config.json").read_bytes()
    return orjson.dumps(config, option=orjson.OPT_INDENT_2) + b"\n"


def _as_stored(
    model: PreTrainedModel, weights: Mapping[str, Tensor], base: Base
) -> dict[str, Tensor]:
    """Return the tensors under the names that the base's files have; a tied one once, as there."""
    found = revert_weight_conversion(model, dict(weights))
    # a model whose adapter was added to its weights still has the names of peft's
    found = {name.removeprefix("base_model.model."): tensor for name, tensor in found.items()}
    prefix = f"{model.base_model_prefix}."
    named = {}
    for name, tensor in found.items():
        short, long = name.removeprefix(prefix), prefix + name
        other = next((n for n in (short, long) if n in base.stored and n not in found), name)
        named[name if name in base.stored else other] = tensor
    places: dict[Any, list[str]] = {}
    for name, tensor in named.items():
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape)
        places.setdefault(key, []).append(name)
    for names in places.values():
        known = [name for name in names if name in base.stored] or names[:1]
        for name in set(names) - set(known):
            del named[name]
    return named


def _kept_from_base(model: PreTrainedModel, own: Iterable[str], base: Base) -> list[str]:
    """Return the tensors of the base that the model does not have, and that stay."""
    absent = sorted(base.stored.keys() - set(own))
    if not set(own) <= base.stored.keys() | {"lm_head.weight"} or base.config.get(
        "quantization_config"
    ):  # the absent ones may be the model's own, under other names
        rules = sorted(model._keys_to_ignore_on_load_unexpected or ())
        return [name for name in absent if any(re.search(rule, name) for rule in rules)]
    return absent


def _meta(file: Path, name: str) -> Tensor:
    """Return an empty tensor in the shape and dtype of a stored one."""
    with safe_open(file, "pt") as opened:
        part = opened.get_slice(name)
        shape = part.get_shape()
        return torch.empty(shape, dtype=(part[:0] if shape else part[...]).dtype, device="meta")


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(name)
    return tensor


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with separate storages, as safetensors needs."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in seen or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensors[name] = tensor.clone()
        seen.add(place)
    return tensors
