"""K completions of each prompt from a model: the first half of the paper's pipeline.

    config = SampleConfig(k=4, max_new_tokens=48)
    for completions in sample_completions(["Tell me a story."], model, tokenizer, config):
        print([completion.text for completion in completions])

Prompts are decoded in windows, sorted by length inside a window so that little is padded, and come
back in the order given. See https://arxiv.org/abs/2305.18290, §4, "DPO outline", (1).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import TemplateError
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt
from transformers import PreTrainedModel

from dpo.cache_check import Chosen, choose_reader
from dpo.decode import Prompt, Sampled, Sampling, sample_batch, uniforms
from dpo.errors import UsageError
from dpo.tokenizer import Messages, prompt_ids, stop_ids

WINDOW = 8  # batches in a window: what is lost at most when a run is killed


class SampleConfig(BaseModel):
    """What decides the completions, beside the model and the prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    k: PositiveInt = 4
    """Completions of each prompt."""
    temperature: NonNegativeFloat = 1.0
    """0 takes the likeliest token each time; then all completions of a prompt are equal."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Tokens are drawn from the smallest set of the likeliest that has this share of the mass."""
    max_new_tokens: PositiveInt = 64
    """Tokens of a completion at most, its end token included."""
    batch_size: PositiveInt = 64
    """Completions decoded at once."""
    seed: int = 0
    raw: bool = False
    """Continue string prompts word for word, without the chat template."""

    @property
    def prompts_per_batch(self) -> int:
        return max(1, self.batch_size // self.k)

    @property
    def prompts_per_window(self) -> int:
        return WINDOW * self.prompts_per_batch


class Completion(NamedTuple):
    """One answer of the model."""

    text: str
    ids: list[int]
    logp: float
    """Sum over `ids` at temperature 1, in nats."""
    ended: bool
    """Whether the model ended it; otherwise it was cut at max_new_tokens."""


def sample_completions(
    prompts: Sequence[str | Messages],
    model: PreTrainedModel,
    tokenizer: Any,
    config: SampleConfig,
    *,
    first: int = 0,
    reader: Chosen | None = None,
) -> Iterator[list[Completion]]:
    """Yield the completions of each prompt from `first` on, in the order of the prompts.

    `first` must begin a window for a resumed run to give the same bytes. Without a `reader` one is
    chosen by the first prompts (`choose_reader`).
    """
    stop = stop_ids(model, tokenizer)
    if reader is None and prompts:
        some = prompts[first : first + config.prompts_per_window] or prompts
        reader, _ = choose_sampling(some, model, tokenizer, config)
    for start in range(first, len(prompts), config.prompts_per_window):
        window = prompts[start : start + config.prompts_per_window]
        ids = [prompt_ids(prompt, tokenizer, raw=config.raw) for prompt in window]
        done: list[list[Sampled]] = [[] for _ in window]
        order = sorted(range(len(window)), key=lambda place: len(ids[place]))
        for at in range(0, len(order), config.prompts_per_batch):
            places = order[at : at + config.prompts_per_batch]
            batch = [_with_uniforms(ids[place], start + place, config) for place in places]
            sampled = sample_batch(model, batch, _sampling(config), stop, reader)
            for place, completions in zip(places, sampled, strict=True):
                done[place] = completions
        for completions in done:
            yield [_readable(completion, tokenizer) for completion in completions]


def choose_sampling(
    prompts: Sequence[str | Messages], model: PreTrainedModel, tokenizer: Any, config: SampleConfig
) -> tuple[Chosen, str | None]:
    """The reader that is right for a model and prompts; why it is not the cache, if it is not."""
    texts = [prompt_ids(prompt, tokenizer, raw=config.raw) for prompt in prompts]
    return choose_reader(model, texts, _sampling(config))


def check_prompts(
    places: Sequence[str],
    prompts: Sequence[str | Messages],
    model: PreTrainedModel,
    tokenizer: Any,
    config: SampleConfig,
) -> None:
    """Refuse what cannot be sampled before any time is spent; `places` name the prompts."""
    chats = [p for p, prompt in zip(places, prompts, strict=True) if not _verbatim(prompt, config)]
    if chats and not tokenizer.chat_template:
        problem = "this prompt is a conversation, but the model's tokenizer has no chat template"
        remedy = "take an instruct model, or pass string prompts with --raw"
        raise UsageError("T131", chats[0], problem, remedy)
    longest = getattr(model.config, "max_position_embeddings", None)
    for place, prompt in zip(places, prompts, strict=True):
        try:
            length = len(prompt_ids(prompt, tokenizer, raw=config.raw))
        except TemplateError as error:
            remedy = "mend the roles and their order"
            raise UsageError("T132", place, f"the chat template says: {error}", remedy) from error
        if length == 0:
            raise UsageError("T132", place, "the prompt has no token", "give it a text")
        if longest and length + config.max_new_tokens > longest:
            problem = (
                f"{length:,} tokens of prompt and {config.max_new_tokens:,} new ones"
                f" do not fit the model's {longest:,}"
            )
            raise UsageError("T134", place, problem, "shorten the prompt or --max-new-tokens")


def _verbatim(prompt: str | Messages, config: SampleConfig) -> bool:
    return config.raw and isinstance(prompt, str)


def _with_uniforms(ids: list[int], row: int, config: SampleConfig) -> Prompt:
    drawn = [uniforms(config.seed, row, k, config.max_new_tokens) for k in range(config.k)]
    return Prompt(ids, np.stack(drawn))


def _sampling(config: SampleConfig) -> Sampling:
    return Sampling(config.temperature, config.top_p, config.max_new_tokens)


def _readable(sampled: Sampled, tokenizer: Any) -> Completion:
    text = tokenizer.decode(sampled.ids, skip_special_tokens=True)
    return Completion(text, sampled.ids, sampled.logp, sampled.ended)
