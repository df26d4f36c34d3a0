"""Records to the three texts of a pair: prompt, prompt + chosen, prompt + rejected."""

from datetime import date
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jinja2
import orjson
import pyarrow as pa

from prefdata.arrays import whole
from prefdata.errors import UsageError
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.patience import Patience
from prefdata.tokens.target import Target
from prefdata.tokens.template import (
    TEMPLATE_FAULTS,
    Message,
    compile_template,
    plain_message,
    sandbox,
)
from prefdata.tokens.trace import TracedTemplate, trace_template


class PairTexts(NamedTuple):
    """What the tokenizer sees of a pair; the two sides begin with the prompt, or should."""

    prompt: str
    chosen: str
    rejected: str


class Refusal(NamedTuple):
    """Why a pair cannot become tokens."""

    code: str
    message: str


class _Compiled(NamedTuple):
    """A template as it is run, and as it is traced; None where it cannot be."""

    template: jinja2.Template
    traced: TracedTemplate | None


@lru_cache(maxsize=8)
def _compile(source: str, day: date | None, variables: bytes) -> _Compiled:
    """Compiled once a process; all shards share what its traces learn."""
    template = compile_template(source, sandbox(day=day))
    traced = trace_template(source, sandbox(day=day), orjson.loads(variables))
    return _Compiled(template, traced)


class Renderer:
    """Turns messages into text by one target's template, compiled once."""

    def __init__(self, target: Target, options: TokenOptions, patience: Patience) -> None:
        self._target = target
        self._patience = patience
        self._options = options
        self._compiled: dict[str, _Compiled] = {}
        self._last_prompt: tuple[list[Message], list[Any] | None, str] | None = None
        self._variables = {**target.special_tokens, **options.chat_template_kwargs}

    @property
    def end_of_turn(self) -> str | None:
        return self._target.special_tokens.get("eos_token")

    def render(
        self, messages: list[Message], tools: list[Any] | None, *, add_generation_prompt: bool
    ) -> str:
        """The text of a dialogue; raises one of TEMPLATE_FAULTS where the template refuses it."""
        template, traced = self._template(tools)
        render = partial(
            template.render,
            messages=messages,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._variables,
        )
        if traced is None or tools is not None or not all(len(m) == 2 for m in messages):
            return self._patience.run(render)
        run = partial(self._patience.run, render)
        return traced.join(messages, run, add_generation_prompt=add_generation_prompt)

    def chat(
        self,
        prompt: list[Message],
        sides: tuple[list[Message], list[Message]],
        tools: list[Any] | None,
    ) -> PairTexts | Refusal:
        """The texts of a pair of dialogues."""
        try:
            before = self._prompt(prompt, tools)
            after = [self.render(prompt + s, tools, add_generation_prompt=False) for s in sides]
        except TEMPLATE_FAULTS as error:
            reason = " ".join(str(error).split())[:200]
            return Refusal("PD711", f"the chat template refuses this dialogue: {reason}")
        return PairTexts(before, *after)

    def _prompt(self, prompt: list[Message], tools: list[Any] | None) -> str:
        """The pairs of a prompt are adjacent, so it is rendered for the first of them only."""
        if self._last_prompt is None or self._last_prompt[:2] != (prompt, tools):
            text = self.render(prompt, tools, add_generation_prompt=True)
            self._last_prompt = (prompt, tools, text)
        return self._last_prompt[2]

    def text(
        self, prompt: list[Message], sides: tuple[list[Message], list[Message]]
    ) -> PairTexts | Refusal:
        """The texts of a pair without a template: verbatim, ended by EOS."""
        end = self.end_of_turn
        if end is None:
            problem = "has no eos_token, by which a completion in plain text would end"
            raise UsageError("C116", self._target.name, problem, "use another tokenizer")
        before = _verbatim(prompt)
        texts = [_verbatim(side) for side in sides]
        return PairTexts(before, *(before + (t if t.endswith(end) else t + end) for t in texts))

    def _template(self, tools: list[Any] | None) -> _Compiled:
        source = self._target.template(has_tools=tools is not None)
        if source is None:
            problem = "has no chat template, and the data are dialogues"
            remedy = "use an instruct model's tokenizer, or set chat_template: FILE"
            raise UsageError("C115", self._target.name, problem, remedy)
        if source not in self._compiled:
            variables = orjson.dumps(self._variables, option=orjson.OPT_SORT_KEYS)
            self._compiled[source] = _compile(source, self._options.template_date, variables)
        return self._compiled[source]


def _verbatim(messages: list[Message]) -> str:
    return "".join(message["content"] for message in messages)


def read_messages(column: pa.ChunkedArray) -> list[list[Message]]:
    """A column of messages as templates want them.

    Field by field: turning the nested column into Python objects at once takes five times as long.
    """
    lists = whole(column)
    flat = lists.flatten()
    fields = [flat.field(name) for name in flat.type.names]
    # A field of nulls alone, as most are, costs nothing.
    values = [f.to_pylist() if f.null_count < len(f) else [None] * len(f) for f in fields]
    messages = [plain_message(*message) for message in zip(*values, strict=True)]
    lengths = lists.value_lengths().to_pylist()
    ends = 0
    rows = []
    for length in lengths:
        rows.append(messages[ends : ends + length])
        ends += length
    return rows


def read_tools(column: pa.ChunkedArray) -> list[list[Any] | None]:
    """A column of JSON lists of tools."""
    return [None if text is None else orjson.loads(text) for text in column.to_pylist()]
