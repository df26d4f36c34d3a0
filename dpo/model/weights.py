"""Weights of a checkpoint: the files that contain them, and checks that they fit the model.

Nothing here is guessed. A missing tensor would be initialised at random, an extra one would be
ignored; each is an error before any work.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import orjson
import torch
from safetensors import SafetensorError, safe_open
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from transformers.utils.hub import cached_file

from dpo.errors import UsageError

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "*.bin", "*.pt", "*.pth", "*.ckpt")
_BUFFERS = (".inv_freq", ".position_ids", ".masked_bias")
"""Suffixes of buffers that old checkpoints store and that a config decides."""
_DERIVED = (*_BUFFERS, ".attn.bias", ".attention.bias")
"""Suffixes of `_BUFFERS`, and of masks that only some models have."""
_FLOATS = ("F64", "F32", "F16", "BF16")
_SHOWN = 3
_CHECKED = 2**22
"""Values that are checked at once."""


class Loading(NamedTuple):
    """Names of tensors by which a model and the files of its checkpoint differ."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    """Names with both shapes."""

    @classmethod
    def of(cls, info: dict[str, Any]) -> "Loading":
        """Return the differences from the report of transformers' `output_loading_info`."""
        shapes = [
            f"{name} {tuple(stored)} for {tuple(wanted)}"
            for name, stored, wanted in sorted(info["mismatched_keys"])
        ]
        unexpected = [key for key in sorted(info["unexpected_keys"]) if not key.endswith(_BUFFERS)]
        return cls(tuple(sorted(info["missing_keys"])), tuple(unexpected), tuple(shapes))


def check_files(name: str) -> None:
    """Refuse a directory whose weights cannot be read as they are; a hub name passes.

    Raises UsageError: T191 truncated or absent files, T192 pickles, T197 ambiguous weights.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    if not weight_files(folder):
        _refuse_no_weights(folder)
    held = Counter(_stored(folder))
    twice = [tensor for tensor, count in held.items() if count > 1]
    if twice:
        problem = f"has {_some(twice)} in more than one file"
        raise UsageError("T197", name, problem, "keep only the files of one save")
    _check_index(folder, held.keys())
    _check_generation(folder / "generation_config.json")


def check_loading(name: str, loading: Loading) -> None:
    """Refuse a model whose tensors are not exactly those of its checkpoint.

    Raises UsageError: T193 missing tensors, T194 extra tensors, T195 other shapes.
    """
    if loading.mismatched:
        problem = f"has tensors of other shapes than config.json says: {_some(loading.mismatched)}"
        remedy = "use the config.json and the weights of one save"
        raise UsageError("T195", name, problem, remedy)
    if loading.missing:
        problem = f"lacks tensors that the model needs: {_some(loading.missing)}"
        if loading.unexpected:
            problem += f"; it has others that the model does not know: {_some(loading.unexpected)}"
        remedy = "use a complete checkpoint; missing weights are never initialised"
        raise UsageError("T193", name, problem, remedy)
    if loading.unexpected:
        problem = f"has tensors that the model does not know: {_some(loading.unexpected)}"
        remedy = "correct config.json (for example its number of layers), or save without them"
        raise UsageError("T194", name, problem, remedy)


def check_doubles(name: str, model: Any) -> None:
    """Refuse tensors that transformers maps to the same one, as the last would win (T197).

    It strips and adds the name of the body, so `model.norm.weight`, `norm.weight` and
    `model.model.norm.weight` are one.
    """
    folder, prefix = Path(name), f"{model.base_model_prefix}."
    if not folder.is_dir():
        return
    seen: dict[str, str] = {}
    for tensor in _stored(folder):
        short = tensor
        while prefix != "." and short.startswith(prefix):
            short = short.removeprefix(prefix)
        if short in seen:
            problem = f"has both {seen[short]} and {tensor}, which name the same weights"
            raise UsageError("T197", name, problem, "save the model with only one of them")
        seen[short] = tensor


def check_dtypes(name: str, model: Any) -> None:
    """Refuse weights that are stored as integers or in 8 bits without scales (T195)."""
    folder = Path(name)
    if not folder.is_dir() or getattr(model.config, "quantization_config", None) is not None:
        return
    own = {tensor for tensor, _ in model.named_parameters()}
    odd = []
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            dtypes = {tensor: opened.get_slice(tensor).get_dtype() for tensor in tensor_names(file)}
        odd += [f"{t} {d}" for t, d in dtypes.items() if d not in _FLOATS and _is_held(t, own)]
    if odd:
        problem = f"has weights that are not floating point numbers: {_some(odd)}"
        remedy = "save the model in float32, bfloat16 or float16"
        raise UsageError("T195", name, problem, remedy)


def check_finite(name: str, model: torch.nn.Module) -> None:
    """Refuse weights that are NaN or infinite (T196)."""
    for tensor_name, tensor in model.named_parameters():
        if tensor.device.type == "meta" or not tensor.is_floating_point():
            continue
        rows = tensor.detach()
        rows = rows.to_local() if isinstance(rows, DTensor) else rows
        # the check takes as much memory as it looks at
        parts = rows.flatten().split(_CHECKED)  # type: ignore[no-untyped-call]
        wrong = rows.numel() - torch.stack([torch.isfinite(part).sum() for part in parts]).sum()
        if isinstance(tensor, DTensor):
            dist.all_reduce(wrong)
        if wrong:
            problem = f"{tensor_name} has {int(wrong):,} values that are NaN or infinite"
            remedy = "use an earlier checkpoint: these weights cannot give log-probs"
            raise UsageError("T196", name, problem, remedy)


def left_out(name: str, model: Any) -> str | None:
    """Return a notice of stored tensors that transformers' own rules ignore, or None.

    Examples are vision towers of multimodal checkpoints and layers for multi-token prediction.
    Buffers that a config decides are not reported.
    """
    folder, rules = Path(name), sorted(model._keys_to_ignore_on_load_unexpected or ())
    if not folder.is_dir() or not rules:
        return None
    own = {tensor for tensor, _ in model.named_parameters()}
    outside = sorted(
        t
        for t in _stored(folder)
        if not _is_held(t, own)
        and not t.endswith(_DERIVED)
        and any(re.search(rule, t) for rule in rules)
    )
    if not outside:
        return None
    parts = Counter(_part_of(tensor) for tensor in outside)
    listed = ", ".join(f"{part}.* ({count})" for part, count in parts.items())
    return f"{len(outside):,} tensors of {name} are not part of the text model: {listed}"


def model_folder(name: str) -> Path:
    """Return the directory of a checkpoint; for a name on the Hub, that in its cache."""
    folder = Path(name)
    return folder if folder.is_dir() else Path(str(cached_file(name, "config.json"))).parent


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the dtype of most tensors of a checkpoint that are floating point numbers."""
    found: Counter[str] = Counter()
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            found.update(opened.get_slice(tensor).get_dtype() for tensor in opened.keys())  # noqa: SIM118
    known = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    return max(known.items(), key=lambda item: found[item[0]])[1]


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint's directory, in order of name."""
    whole, index = folder / _WHOLE, folder / _INDEX
    if whole.exists() and index.exists():
        problem = f"has both {_WHOLE} and {_INDEX}, which may contain different weights"
        raise UsageError("T197", str(folder), problem, "keep only the files of one save")
    if whole.exists():
        return [whole]
    if not index.exists():
        return []
    names = sorted(set(_read_index(index).values()))
    for name in names:
        if PurePath(name).name != name or name in ("", ".", ".."):
            problem = f"names {name!r}, which is not a file next to it"
            raise UsageError("T191", str(index), problem, "save the checkpoint again")
        if not (folder / name).is_file():
            problem = f"names {name}, which is absent"
            remedy = "copy or download all files of the checkpoint"
            raise UsageError("T191", str(index), problem, remedy)
    return [folder / name for name in names]


def _stored(folder: Path) -> list[str]:
    """Return the names of all tensors in a checkpoint's directory, in the order of its files."""
    return [tensor for file in weight_files(folder) for tensor in tensor_names(file)]


def tensor_names(file: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file; refuse a truncated one (T191)."""
    try:
        with safe_open(file, "pt") as opened:
            names: list[str] = list(opened.keys())
    except (SafetensorError, OSError, ValueError) as error:
        problem = f"is not a complete safetensors file ({_said(error)})"
        if _is_lfs_pointer(file):
            problem = "is a Git LFS pointer, not the weights"
            raise UsageError("T191", str(file), problem, "run `git lfs pull` there") from error
        remedy = "copy, download or save it again"
        raise UsageError("T191", str(file), problem, remedy) from error
    return names


def _refuse_no_weights(folder: Path) -> None:
    pickle = next((file.name for glob in _PICKLES for file in sorted(folder.glob(glob))), None)
    if pickle is not None:
        problem = f"has its weights as a pickle ({pickle}), which can run code and is not opened"
        remedy = "if you trust it, load it with transformers and save_pretrained as safetensors"
        raise UsageError("T192", str(folder), problem, remedy)
    problem = f"has no {_WHOLE} and no {_INDEX}"
    raise UsageError("T191", str(folder), problem, "name a checkpoint with safetensors")


def _check_index(folder: Path, held: Iterable[str]) -> None:
    """Refuse an index that lists tensors which its files do not contain."""
    index = folder / _INDEX
    if not index.exists():
        return
    absent = sorted(_read_index(index).keys() - set(held))
    if absent:
        problem = f"lists tensors that its files do not have: {_some(absent)}"
        raise UsageError("T191", str(index), problem, "copy, download or save it again")


def _read_index(index: Path) -> dict[str, str]:
    """Return the file of each tensor, by the tensor's name."""
    try:
        value = orjson.loads(index.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        problem = f"cannot be read ({_said(error)})"
        raise UsageError("T191", str(index), problem, "save the checkpoint again") from error
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        problem = "has no `weight_map` from tensors to files"
        raise UsageError("T191", str(index), problem, "save the checkpoint again")
    return found


def _check_generation(path: Path) -> None:
    """Refuse a broken generation config, which would be ignored: it says which ids end answers."""
    if not path.exists():
        return
    remedy = "correct it, or delete it to use the eos_token_id of config.json"
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise UsageError("T212", str(path), f"cannot be read ({_said(error)})", remedy) from error
    if not isinstance(value, dict):
        raise UsageError("T212", str(path), "is not a JSON object", remedy)
    ends = value.get("eos_token_id")
    if not all(type(end) is int for end in (ends if isinstance(ends, list) else [ends or 0])):
        problem = f"has {ends!r} as eos_token_id, which must be an id or a list of ids"
        raise UsageError("T212", str(path), problem, remedy)


def _is_held(tensor: str, own: set[str]) -> bool:
    """Return whether a stored tensor is one of the model's, perhaps under a longer name."""
    return tensor in own or any(name.endswith(f".{tensor}") for name in own)


def _part_of(tensor: str) -> str:
    """Return the part of a model that a tensor belongs to: up to two first words of its name."""
    words = tensor.split(".")
    stop = next((at for at, word in enumerate(words) if word.isdigit()), len(words) - 1)
    return ".".join(words[: max(1, min(stop, 2))])


def _is_lfs_pointer(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(24).startswith(b"version https://git-lfs")


def _some(names: Iterable[str]) -> str:
    """Return the first few names, and the number of the others."""
    listed = sorted(names)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:120].rstrip(".")
