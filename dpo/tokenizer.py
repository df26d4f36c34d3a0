"""What a prompt is to a model: the ids that it continues, and those that end its answer."""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from dpo.errors import UsageError
from prefdata.tokens.load import load_tokenizer as tokenizer_of

Messages = list[dict[str, Any]]


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a checkpoint's folder or a hub name; no code from it is run."""
    return tokenizer_of(name, partial(UsageError, "T130", name))


def short_name(name: str) -> str:
    """What a record says of its model: the folder's own name, or the hub name as it is."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def prompt_ids(prompt: str | Messages, tokenizer: Any, *, raw: bool) -> list[int]:
    """The ids that the model continues; a string is a user's turn unless it is `raw`."""
    if isinstance(prompt, str) and raw:
        ids: list[int] = tokenizer(prompt).input_ids
        return ids
    text = tokenizer.apply_chat_template(
        as_messages(prompt), tokenize=False, add_generation_prompt=True
    )
    chat_ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return chat_ids


def as_messages(prompt: str | Messages) -> Messages:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def stop_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a completion: the generation config's, and the tokenizer's end."""
    ends = model.generation_config.eos_token_id if model.generation_config else None
    found = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    return frozenset(found - {None})
