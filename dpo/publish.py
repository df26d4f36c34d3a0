"""The trained policy as an ordinary checkpoint of transformers: weights, tokenizer, template."""

import shutil
from pathlib import Path

from transformers import AutoTokenizer

from dpo.policy import Policy
from prefdata.store.commit import fsync_path, temporary_name


def save_model(policy: Policy, tokenizer: str, path: Path) -> None:
    """Write the checkpoint under a temporary name, then give it its name.

    The folder loads with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer`, and knows
    nothing of packs.
    """
    shared = policy.shared
    policy.share(shared=False)
    temporary = temporary_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    policy.model.save_pretrained(temporary)
    AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False).save_pretrained(temporary)
    for file in temporary.iterdir():
        fsync_path(file)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
    fsync_path(path.parent)
    policy.share(shared=shared)
