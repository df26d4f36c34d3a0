"""The trained policy as any checkpoint of transformers: weights, tokenizer, template and card."""

import shutil
from pathlib import Path
from typing import Any

from dpo.adapters import merged, save_adapter
from dpo.config import TrainConfig
from dpo.policy import Policy
from dpo.tokenizer import load_tokenizer
from prefdata.store.commit import fsync_path, temporary_name


def save_model(
    policy: Policy,
    config: TrainConfig,
    path: Path,
    *,
    card: str,
    weights: dict[str, Any] | None = None,
) -> None:
    """Write the checkpoint under a temporary name, then give it its name.

    The folder loads with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer`, and knows
    nothing of packs. An adapter is merged into it, and lies beside it by itself. `weights` are the
    policy's where it does not hold them whole.
    """
    tokenizer = config.model
    shared = policy.shared
    policy.share(shared=False)
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    if config.lora is None:
        policy.model.save_pretrained(temporary, state_dict=weights)
    else:
        adapter = path.with_name("adapter")
        save_adapter(policy.model, adapter, weights)
        merged(config.model, adapter).save_pretrained(temporary)
    load_tokenizer(tokenizer).save_pretrained(temporary)
    (temporary / "README.md").write_text(card, encoding="utf-8")
    for file in temporary.iterdir():
        fsync_path(file)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
    fsync_path(path.parent)
    policy.share(shared=shared)
