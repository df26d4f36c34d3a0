"""K completions of each prompt from a model: the first half of the paper's pipeline.

    config = SampleConfig(k=4, max_new_tokens=48)
    for completions in sample_completions(["Tell me a story."], model, tokenizer, config):
        print([completion.text for completion in completions])

Prompts are decoded in windows, sorted by length within a window to reduce padding, and come back
in the order given. See https://arxiv.org/abs/2305.18290, §4, "DPO outline", (1).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, model_validator
from transformers import PreTrainedModel

from dpo.errors import UsageError
from dpo.model.tokenizer import Messages, as_messages, encode_prompt, prompt_encoder, stop_ids
from dpo.sampling.cache_check import choose_reader
from dpo.sampling.decode import Prompt, sample_batch, uniforms
from dpo.sampling.draw import Sampling
from dpo.sampling.laid_out import CpuLinears
from dpo.sampling.readers import MakeReader
from prefdata.read.texts import (
    SAMPLE_ROWS,
    Joins,
    TextChoice,
    TextMode,
    TextRule,
    choose,
    count_joins,
)
from prefdata.tokens.options import ControlTokens
from prefdata.tokens.prompts import PromptEncoder

WINDOW = 8  # batches in a window: the most that a killed run loses


class SampleConfig(BaseModel):
    """Settings that determine the completions, in addition to the model and the prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    k: PositiveInt = 4
    """Completions of each prompt."""
    temperature: NonNegativeFloat = 1.0
    """0 is greedy decoding; then all completions of a prompt are equal."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: draw from the smallest set of likeliest tokens with this mass."""
    max_new_tokens: PositiveInt = 64
    """Maximum number of tokens of a completion, including its end token."""
    batch_size: PositiveInt = 64
    """Completions decoded at once."""
    seed: int = 0
    text: TextMode = "auto"
    """String prompts are a `chat`'s first turn or `verbatim`; `auto` decides by how the prompts
    end, as a build does."""
    raw: bool = False
    """Shorthand for `text: verbatim`."""
    control_tokens: ControlTokens = "encode"
    """Control tokens in a prompt: `encode` them as plain text, as a build does, `reject`
    the prompt, or `allow` them to steer the model."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "SampleConfig":
        if self.raw and self.text == "chat":
            raise ValueError("raw means text: verbatim, but text: chat is set")
        return self

    @property
    def mode(self) -> TextMode:
        return "verbatim" if self.raw else self.text

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_new_tokens)

    @property
    def prompts_per_batch(self) -> int:
        return max(1, self.batch_size // self.k)

    @property
    def prompts_per_window(self) -> int:
        return WINDOW * self.prompts_per_batch


class Completion(NamedTuple):
    """One completion by the model."""

    text: str
    ids: list[int]
    logp: float
    """Log-prob summed over `ids` at temperature 1, in nats."""
    ended: bool
    """True if the model ended it; False if it was cut at max_new_tokens."""


def sample_completions(
    prompts: Sequence[str | Messages],
    model: PreTrainedModel,
    tokenizer: Any,
    config: SampleConfig,
    *,
    first: int = 0,
    reader: MakeReader | None = None,
) -> Iterator[list[Completion]]:
    """Yield the completions of each prompt from `first` on, in the order of the prompts.

    A resumed run gives the same bytes only if `first` begins a window. Without a `reader`, one is
    chosen by the first prompts (`choose_reader`).
    """
    encoder = prompt_encoder(tokenizer, control_tokens=config.control_tokens)
    prompts = read_as(prompts, encoder, config).prompts
    stop = stop_ids(model, tokenizer)
    if reader is None and prompts:
        some = prompts[first : first + config.prompts_per_window] or prompts
        reader, _ = choose_sampling(some, model, encoder, config)
    linears = CpuLinears(model)
    for start in range(first, len(prompts), config.prompts_per_window):
        window = prompts[start : start + config.prompts_per_window]
        ids = [
            encode_prompt(prompt, encoder, f"prompt {start + at}")
            for at, prompt in enumerate(window)
        ]
        done: dict[int, list[Completion]] = {}
        order = sorted(range(len(window)), key=lambda place: len(ids[place]))
        for at in range(0, len(order), config.prompts_per_batch):
            places = order[at : at + config.prompts_per_batch]
            batch = [
                Prompt(ids[p], uniforms(config.seed, start + p, config.k, config.max_new_tokens))
                for p in places
            ]
            with linears.running():
                sampled = sample_batch(model, batch, config.sampling, stop, reader)
            for place, completions in zip(places, sampled, strict=True):
                done[place] = [
                    Completion(tokenizer.decode(one.ids, skip_special_tokens=True), *one)
                    for one in completions
                ]
        yield from (done[place] for place in range(len(window)))


def choose_sampling(
    prompts: Sequence[str | Messages],
    model: PreTrainedModel,
    encoder: PromptEncoder,
    config: SampleConfig,
) -> tuple[MakeReader, str | None]:
    """Return the reader that suits a model and prompts, and why it is not the cache."""
    texts = [encode_prompt(prompt, encoder, "prompt") for prompt in prompts]
    return choose_reader(model, texts, config.sampling)


class ReadPrompts(NamedTuple):
    """Prompts ready for sampling: messages, and verbatim strings."""

    prompts: list[str | Messages]
    choice: TextChoice | None
    """Reading of the strings; None if there are none."""


def read_as(
    prompts: Sequence[str | Messages],
    encoder: PromptEncoder,
    config: SampleConfig,
    place: str = "prompts",
) -> ReadPrompts:
    """Decide how string prompts are read; raise E180 if the evidence supports neither reading."""
    target = encoder.target

    def as_chat(text: str) -> str:
        ids = encode_prompt(as_messages(text), encoder, place)
        return target.backend.decode(ids, skip_special_tokens=False)

    rule = TextRule(config.mode, bool(target.templates), target.control_tokens)
    return read_by(prompts, rule, place, as_chat)


def read_by(
    prompts: Sequence[str | Messages],
    rule: TextRule,
    place: str,
    as_chat: Callable[[str], str] | None = None,
) -> ReadPrompts:
    """Decide how string prompts are read; `as_chat` shows the first one in an error (E180)."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if not texts:
        return ReadPrompts(list(prompts), None)
    others = len(prompts) - len(texts)
    joins = _count_ends(texts, others, rule)
    choice = choose(joins, rule)
    if choice is None:  # trailing spaces in a few prompts are not evidence without an answer
        stripped = [text.rstrip(" ") for text in texts]
        choice = choose(_count_ends(stripped, others, rule), rule)
    if choice is None:
        problem = (
            f"{joins.running:,} of {joins.rows:,} prompts end in a space, a line break or a marker,"
            f" {joins.bare:,} do not; the first is "
            + (f"{as_chat(texts[0])!r} as a chat, " if as_chat else "")
            + f"{texts[0]!r} verbatim"
        )
        raise UsageError("E180", place, problem, "choose --text chat or --text verbatim")
    if choice.form == "text":
        return ReadPrompts(list(prompts), choice)
    return ReadPrompts([as_messages(prompt) for prompt in prompts], choice)


def _count_ends(texts: Sequence[str], others: int, rule: TextRule) -> Joins:
    """Count what prompts end in; conversations count as evidence for a chat."""
    joins = count_joins([(text, ()) for text in texts[:SAMPLE_ROWS]], rule.controls)
    return joins._replace(rows=joins.rows + others, bare=joins.bare + others)


def check_prompts(
    places: Sequence[str],
    prompts: Sequence[str | Messages],
    model: PreTrainedModel,
    encoder: PromptEncoder,
    config: SampleConfig,
) -> None:
    """Raise a coded error for a prompt that cannot be sampled; `places` name the prompts."""
    chats = [p for p, prompt in zip(places, prompts, strict=True) if not isinstance(prompt, str)]
    if chats and not encoder.target.templates:
        problem = "this prompt is a conversation, but the model's tokenizer has no chat template"
        remedy = "use an instruct model, or pass string prompts"
        raise UsageError("T131", chats[0], problem, remedy)
    longest = getattr(model.config, "max_position_embeddings", None)
    for place, prompt in zip(places, prompts, strict=True):
        is_exact = isinstance(prompt, str) and config.control_tokens == "encode"
        if is_exact and encoder.spells_token(prompt):
            problem = (
                "this verbatim prompt has control tokens, which would be encoded as plain text"
            )
            remedy = "let them steer the model with --control-tokens allow"
            raise UsageError("E183", place, problem, remedy)
        length = len(encode_prompt(prompt, encoder, place))
        if length == 0:
            raise UsageError("T132", place, "the prompt has no tokens", "write a text")
        if longest and length + config.max_new_tokens > longest:
            problem = (
                f"{length:,} tokens of prompt and {config.max_new_tokens:,} new ones"
                f" do not fit the model's {longest:,}"
            )
            raise UsageError("T134", place, problem, "shorten the prompt or --max-new-tokens")
