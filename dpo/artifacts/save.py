"""The trained policy as a transformers checkpoint: weights, tokenizer, template and card."""

import shutil
from pathlib import Path
from typing import Any

from dpo.config import TrainConfig
from dpo.model.lora import merged, save_adapter
from dpo.model.policy import Policy
from dpo.model.source import find_parts
from dpo.model.tokenizer import load_tokenizer
from prefdata.store.claim import Claim
from prefdata.store.commit import FileDigest, fsync_path, temporary_name

MODEL, ADAPTER = "model", "adapter"
"""Directories of a run's output."""


def save_model(
    policy: Policy,
    config: TrainConfig,
    claim: Claim,
    *,
    card: str,
    weights: dict[str, Any] | None = None,
) -> dict[str, FileDigest]:
    """Write the checkpoint under a temporary name, then rename it; return its files.

    The directory loads with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer`, and does
    not depend on packs. An adapter is merged into it, and also saved next to it. `weights` is the
    policy's whole state dict, if it is sharded.
    """
    parts = find_parts(config.model)
    shared = policy.shared
    policy.share(shared=False)
    path, made = claim.folder / MODEL, dict[str, FileDigest]()
    temporary = _new_folder(path)
    if config.lora is None:
        policy.model.save_pretrained(temporary, state_dict=weights)
    else:
        adapter = _new_folder(claim.folder / ADAPTER)
        save_adapter(policy.model, adapter, weights)
        merged(parts.base, adapter).save_pretrained(temporary)
        made |= claim.place(adapter, ADAPTER)
    load_tokenizer(parts.tokenizer).save_pretrained(temporary)
    (temporary / "README.md").write_text(card, encoding="utf-8")
    for file in temporary.iterdir():
        fsync_path(file)
    made |= claim.place(temporary, MODEL)
    policy.share(shared=shared)
    return made


def _new_folder(path: Path) -> Path:
    """Return a temporary path for a directory, after removing an earlier try's leftovers."""
    temporary = temporary_name(path)
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    return temporary
