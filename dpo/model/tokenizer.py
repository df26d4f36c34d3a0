"""Prompts as token ids that a model continues, and the ids that end its answer."""

from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from dpo.errors import UsageError
from prefdata.tokens.load import load_tokenizer as tokenizer_of
from prefdata.tokens.options import ControlTokens, TokenOptions
from prefdata.tokens.prompts import PromptEncoder
from prefdata.tokens.template.render import Refusal
from prefdata.tokens.tokenizer import target_of

Messages = list[dict[str, Any]]


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a checkpoint's directory or a hub name; no code from it is run."""
    return tokenizer_of(name, partial(UsageError, "T130", name))


def short_name(name: str) -> str:
    """Return the model's name for records: the last part of a directory, or the hub name."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def prompt_encoder(tokenizer: Any, *, control_tokens: ControlTokens = "encode") -> PromptEncoder:
    """Return the encoder of prompts, the same as in a build, so that both give the same ids."""
    target = target_of(str(getattr(tokenizer, "name_or_path", "") or "tokenizer"), tokenizer)
    options = TokenOptions(control_tokens=control_tokens, template_date=date.today())
    return PromptEncoder(target, options)


def encode_prompts(
    prompts: Sequence[str | Messages], tokenizer: Any, *, raw: bool = False
) -> list[list[int]]:
    """Return the ids that the model continues; a string is a user's turn unless `raw`.

    Raises UsageError (T132).
    """
    encoder = prompt_encoder(tokenizer)
    return [
        encode_prompt(prompt if raw else as_messages(prompt), encoder, f"prompt {number}")
        for number, prompt in enumerate(prompts, 1)
    ]


def encode_prompt(
    prompt: str | Messages, encoder: PromptEncoder, place: str, *, is_answered: bool = False
) -> list[int]:
    """Return the ids that the model continues; a string is verbatim text.

    With `is_answered`, the dialogue ends in its answer, and the ids are those of the whole.
    """
    ids = encoder.encode(prompt, is_answered=is_answered)
    if not isinstance(ids, Refusal):
        return ids
    if ids.code == "PD711":
        remedy = "fix the roles and their order"
        raise UsageError("T132", place, f"the chat template says: {ids.message}", remedy)
    raise UsageError("T132", place, f"{ids.message} ({ids.code})", "fix the row or leave it out")


def as_messages(prompt: str | Messages) -> Messages:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def stop_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """Return every id that ends a completion: those of generation config and tokenizer."""
    ends = model.generation_config.eos_token_id if model.generation_config else None
    found = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    return frozenset(found - {None})
