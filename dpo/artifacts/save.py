"""What a run leaves: the trained policy as a transformers checkpoint, its adapter, and the card.

Everything is written under a temporary name, read back by transformers and peft, scored once more,
and only then renamed.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo.artifacts.like_base import Base, copy_files, open_base, write_like_base
from dpo.artifacts.rescore import Probe, gaps, require_equal, require_saved, rescored
from dpo.config import TrainConfig
from dpo.model.load import load_model
from dpo.model.lora import load_adapted, merge_adapter, save_adapter
from dpo.model.policy import Policy
from dpo.model.source import find_parts
from dpo.model.weights import model_folder, stored_dtype
from prefdata.store.claim import Claim
from prefdata.store.commit import FileDigest, fsync_path, temporary_name

MODEL, ADAPTER = "model", "adapter"
"""Directories of a run's output."""


class Saved(NamedTuple):
    """Files that a save made, by path, and messages about them."""

    files: dict[str, FileDigest]
    notices: list[str]


class Source(NamedTuple):
    """A trained policy, and what it must still be when it is read back."""

    policy: Policy
    probe: Probe
    weights: dict[str, Any] | None = None
    """The policy's whole state dict, if it is sharded."""
    card: str = ""
    """Text of README.md."""


def save_run(source: Source, config: TrainConfig, claim: Claim) -> Saved:
    """Write what `config.save` asks for into the run's directory.

    The model loads with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer`, and does not
    depend on packs. Raises TrainingError (T311) if what was written is another model.
    """
    policy, shared = source.policy, source.policy.shared
    policy.share(shared=False)
    staged = {name: _new_folder(claim.folder / name) for name in (ADAPTER, MODEL)}
    notices = write_model(source, config, staged[ADAPTER], staged[MODEL])
    files: dict[str, FileDigest] = {}
    for name, folder in staged.items():
        notices = [line.replace(str(folder), str(claim.folder / name)) for line in notices]
        if folder.is_dir():
            for file in folder.rglob("*"):
                fsync_path(file)
            files |= claim.place(folder, name)
    policy.share(shared=shared)
    return Saved(files, notices)


def write_model(source: Source, config: TrainConfig, adapter: Path, model: Path) -> list[str]:
    """Write the adapter and the model as `config.save` asks, and check them; return notices."""
    policy, save = source.policy.model, config.save
    if config.lora is None:
        weights = policy.state_dict() if source.weights is None else source.weights
        return _write_whole(policy, weights, source, config, model)
    save_adapter(policy, adapter, source.weights)
    base, name, kind = _base_of(config), find_parts(config.model).base, config.weights
    adapted = load_adapted(name, adapter, weights=kind, quantize=config.quantize)
    require_equal(adapted.get_base_model(), source.probe, str(adapter))
    if not save.adapter:
        shutil.rmtree(adapter)
    elif not save.merged:
        copy_files(base, adapter)
        (adapter / "README.md").write_text(source.card, encoding="utf-8")
    if not save.merged:
        return []
    if "quantization_config" in base.config:
        return _write_quantized(merge_adapter(adapted), base, source, model)
    is_rounded = kind == "bfloat16" and stored_dtype(model_folder(name)) != torch.bfloat16
    if config.quantize is None and not is_rounded:
        merged = merge_adapter(adapted)
        return _write_whole(merged, merged.state_dict(), source, config, model)
    merged = merge_adapter(load_adapted(name, adapter))
    lost = gaps(merged, source.probe)
    notice = (
        f"{model}: the adapter is merged into the base's own weights: log-probs differ by"
        f" {lost.mean():.2g} nats a token on average from those under the"
        f" {config.quantize or kind} ones that it was trained on"
    )
    again = source._replace(probe=rescored(merged, source.probe))
    return [notice, *_write_whole(merged, merged.state_dict(), again, config, model)]


def _write_quantized(model: PreTrainedModel, base: Base, source: Source, out: Path) -> list[str]:
    """Write a model whose base is stored quantized: merged, and quantized again."""
    model.save_pretrained(out)
    copy_files(base, out)
    (out / "README.md").write_text(source.card, encoding="utf-8")
    lost = gaps(load_model(str(out)), source.probe)
    return [f"{out}: quantizing again changes log-probs by {lost.mean():.2g} nats a token"]


def _write_whole(
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    source: Source,
    config: TrainConfig,
    out: Path,
) -> list[str]:
    """Write a whole model, and check it as transformers reads it; return notices."""
    write_like_base(model, weights, _base_of(config), out, config.save)
    (out / "README.md").write_text(source.card, encoding="utf-8")
    notice = require_saved(load_model(str(out)), weights, source.probe, str(out))
    return [] if notice is None else [notice]


def _base_of(config: TrainConfig) -> Base:
    """Return the checkpoint that a run began with, with the tokenizer that it used."""
    parts = find_parts(config.model)
    base = open_base(parts.base)
    return base if parts.tokenizer == parts.base else base._replace(tokenizer=Path(parts.tokenizer))


def _new_folder(path: Path) -> Path:
    """Return a temporary path for a directory, after removing an earlier try's leftovers."""
    temporary = temporary_name(path)
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    return temporary
