"""Identity of weights, and checks before step 1 that shards, reference and model belong together.

Each mismatch is an error with its own code. Fingerprints are compared here; `spot_check` then
recomputes a sample of rows, which finds what fingerprints cannot.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers
from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from dpo.data.lengths import Wanted, of_longest
from dpo.data.pairs import Pairs
from dpo.data.reference_store import Reference, ReferenceManifest
from dpo.errors import MismatchError
from dpo.model.load import held_in
from dpo.model.quantized import is_quantized
from dpo.model.source import WEIGHTS as ADAPTER_WEIGHTS
from dpo.model.source import ModelSource, find_parts, read_adapter_config
from dpo.model.weights import model_folder, stored_dtype, weight_files
from dpo.precision import Precision
from prefdata.store.canonical import hash_json
from prefdata.store.reader import Build
from prefdata.store.verify import cache_folder, sha256_cached
from prefdata.tokens.tokenizer import load_tokenizer_spec

_SAYS_NOTHING = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
"""Keys of config.json that do not decide what the model computes with weights in a given dtype."""
_DECIDES_ADAPTER = (
    "r", "lora_alpha", "use_dora", "use_rslora", "fan_in_fan_out", "alpha_pattern", "rank_pattern"
)  # fmt: skip
"""Keys of adapter_config.json that decide what an adapter of given weights computes."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class WeightsId:
    """Identity of a checkpoint: by its files, and by its values if only those can be compared.

    By its files, it is the sha256 of the sha256 of each tensor file, in order of name, and of what
    config.json decides. Equal weights in another dtype or in other files differ in it. By its
    values, it is `values_sha256`, which takes as long as reading all weights in float32; it is
    computed once per checkpoint and machine, and only where a manifest has nothing else in common.
    """

    def __init__(self, model: str | ModelSource, values: Callable[[], str] | None) -> None:
        """Hash the files; `values` gives the hash by values, None if the model cannot give it."""
        self._values, parts = values, find_parts(model)
        folder = model_folder(parts.base)
        files = [_file_sha256(path) for path in weight_files(folder)]
        found = {"config": _decides(folder / "config.json"), "files": files}
        if parts.adapter is not None:
            config = read_adapter_config(parts.adapter)
            found["adapter"] = {key: config.get(key) for key in _DECIDES_ADAPTER}
            found["files"] = [*files, _file_sha256(parts.adapter / ADAPTER_WEIGHTS)]
        self.sha256 = hash_json(found)

    @classmethod
    def of(cls, source: ModelSource, model: PreTrainedModel) -> "WeightsId":
        """Return the identity of a loaded model, by values too if it holds all of them exactly."""
        parts = find_parts(source)
        stored = stored_dtype(model_folder(parts.base))
        is_exact = held_in(source) == "float32" or stored == torch.bfloat16
        is_plain = parts.adapter is None and source.quantize is None
        is_plain &= not is_quantized(model.config)
        return cls(source, partial(values_sha256, model) if is_exact and is_plain else None)

    @cached_property
    def values(self) -> str | None:
        """The hash by values, from the user's cache directory if it was computed before."""
        if self._values is None:
            return None
        key = hash_json([self.sha256, transformers.__version__])  # names of tensors may change
        entry = cache_folder() / f"values-{key}"
        try:
            known = entry.read_text(encoding="utf-8")
        except (OSError, ValueError):
            known = ""
        if dist.is_initialized():  # processes compute it together, or none does
            from_first = [known]
            dist.broadcast_object_list(from_first)
            (known,) = from_first
        if _SHA256.fullmatch(known):
            return known
        found, temporary = self._values(), entry.with_name(f"{entry.name}.{os.getpid()}")
        with suppress(OSError):  # no room, or no home: the next run computes it again
            entry.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(found, encoding="utf-8")
            temporary.replace(entry)
        return found

    def made(self, manifest: ReferenceManifest) -> bool:
        """Return whether log-probs come from these weights, by files or by values."""
        if manifest.weights_by == "files" and manifest.weights_sha256 == self.sha256:
            return True
        wanted = (
            manifest.values_sha256 if manifest.weights_by == "files" else manifest.weights_sha256
        )
        return bool(wanted) and wanted == self.values

    def seal(self, before: ReferenceManifest | None) -> dict[str, Any]:
        """Return the fields of a manifest; those of an earlier one if it has the same weights."""
        if before is not None and self.made(before):
            names = ("weights_sha256", "weights_by", "values_sha256")
            return {name: getattr(before, name) for name in names}
        return {
            "weights_sha256": self.sha256,
            "weights_by": "files",
            "values_sha256": self.values or "",
        }


def _file_sha256(path: Path) -> str:
    """Return the sha256 of a tensor file: in the Hub's cache, the name of the file it links to."""
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    return sha256_cached(target, cache_folder())


def _decides(config: Path) -> Any:
    """Return what a config file decides, without names, versions and dtypes."""

    def cut(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: cut(inner) for key, inner in value.items() if key not in _SAYS_NOTHING}

    return cut(orjson.loads(config.read_bytes()))


def values_sha256(model: nn.Module) -> str:
    """Return the sha256 of the names, shapes and float32 values of all tensors, in order of name.

    Values are hashed as float32, so the hash is the same for every dtype and layout of files that
    represents the values exactly.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(whole.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_tokenizer(model: str, build: Build) -> int:
    """Refuse a model whose tokenizer or template differs from that of the build.

    Returns the tokenizer's largest id, which no id in the shards exceeds.
    """
    spec = load_tokenizer_spec(model)
    built, own = build.manifest.tokenizer, spec.seal()
    remedy = f"build again with --tokenizer {model}"
    if own.tokenizer_sha256 != built.tokenizer_sha256:
        problem = f"its tokenizer differs from that of {build.path}, built with {built.name}"
        raise MismatchError("T201", model, problem, remedy)
    if own.template_sha256 != built.template_sha256:
        problem = f"its chat template differs from that of {build.path}, built with {built.name}"
        remedy += ", or write the build's template to chat_template.jinja in the model's directory"
        raise MismatchError("T202", model, problem, remedy)
    return max(spec.backend.get_vocab(with_added_tokens=True).values(), default=-1)


def check_vocabulary(
    model: PreTrainedModel, *splits: Pairs, largest_known: int, place: str
) -> None:
    """Refuse ids for which the model has no embedding.

    All shards are read if the tokenizer has an id without an embedding, `largest_known`.
    """
    rows = int(model.get_input_embeddings().weight.size(0))  # type: ignore[operator]
    if largest_known < rows:
        return
    largest = max(pairs.largest_id() for pairs in splits)
    if largest >= rows:
        problem = f"has {rows:,} embeddings, but the shards contain the id {largest:,}"
        raise MismatchError("T206", place, problem, "build again with this model's tokenizer")


def check_lengths(model: PreTrainedModel, pairs: Pairs, *, place: str) -> str | None:
    """Refuse pairs that are longer than the model's table of positions (T198).

    Return a notice instead if positions are computed, as rotary ones are.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or not len(pairs):
        return None
    counts = pairs.counts.longest
    longest, beyond = len(counts) - 1, int(counts[limit + 1 :].sum())
    if not beyond:
        return None
    (row,) = pairs.find(of_longest, [Wanted(longest, 0)])
    pair = f"pair {pairs.pair_id(row)[:12]} has {longest:,} tokens"
    if _has_table(model, limit):
        problem = f"has {limit:,} positions, but {pair}, the longest of {beyond:,}"
        raise MismatchError("T198", place, problem, f"build again with max_length: {limit}")
    return f"{beyond:,} pairs are longer than the {limit:,} tokens of {place}'s config: {pair}"


def _has_table(model: PreTrainedModel, limit: int) -> bool:
    """Return whether positions are rows of a table, learned or computed, and so limited."""
    inputs = model.get_input_embeddings()
    learned = any(
        isinstance(module, nn.Embedding)
        and module is not inputs
        and limit <= module.num_embeddings <= limit + 8  # OPT's begins at 2
        for module in model.modules()
    )
    return learned or any(
        "pos" in name and buffer.dim() == 2 and len(buffer) == limit
        for name, buffer in model.named_buffers()
    )


def check_reference(
    reference: Reference, weights: WeightsId, source: ModelSource, precision: Precision
) -> None:
    """Refuse log-probs of other weights, of weights held otherwise, or of another precision."""
    manifest = reference.manifest
    if not weights.made(manifest):
        problem = f"its log-probs come from other weights ({manifest.model}) than {source.name} has"
        if manifest.weights_by == "files" and not manifest.values_sha256:
            problem += ", or from equal ones in other files or another dtype"
        remedy = "run `dpo-ref` with this model, or set reference.model to the one that it ran with"
        raise MismatchError("T205", str(reference.folder), problem, remedy)
    own = {"weights": held_in(source), "quantize": source.quantize}
    theirs = {"weights": manifest.weights, "quantize": manifest.quantize}
    if own != theirs:
        options = " ".join(f"--{key} {value}" for key, value in own.items() if value is not None)
        problem = f"was computed with {_listed(theirs)}, but this run has {_listed(own)}"
        remedy = f"run `dpo-ref {options}` under another --name, or set {_listed(theirs)}"
        raise MismatchError("T213", str(reference.folder), problem, remedy)
    if manifest.mixed_precision != precision:
        problem = f"was computed with mixed_precision {manifest.mixed_precision}, not {precision}"
        remedy = f"run `dpo-ref --mixed-precision {precision}` under another --name"
        raise MismatchError("T208", str(reference.folder), problem, remedy)


def _listed(settings: Mapping[str, str | None]) -> str:
    return ", ".join(f"{key}: {value or 'null'}" for key, value in settings.items())
