"""Rendering of records to the texts of a pair: prompt, prompt + chosen, prompt + rejected."""

import atexit
from datetime import date
from functools import cached_property, partial
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from prefdata.arrow import whole
from prefdata.errors import UsageError
from prefdata.records.secrets import quote
from prefdata.tokens.chat_template import (
    REASONING,
    TEMPLATE_FAULTS,
    Message,
    Tools,
    plain_message,
    sandbox,
)
from prefdata.tokens.escape import ControlTokenEscaper
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.template.limited import TemplateLimitError, TemplateProcess
from prefdata.tokens.template.trace import TracedTemplate, trace_template
from prefdata.tokens.tokenizer import TokenizerSpec

MOST_BREACHES = 16  # rows of a slice that may exceed a template's limits
_SIGN = "qzreasoningxj"
_SYSTEM = ("system", "developer")


class Dialogues(NamedTuple):
    """A pair as it is given to the template."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: Tools

    @property
    def sides(self) -> tuple[list[Message], list[Message]]:
        return self.chosen, self.rejected


class PairTexts(NamedTuple):
    """Texts of a pair for the tokenizer; the two sides should begin with the prompt."""

    prompt: str
    chosen: str
    rejected: str


class Refusal(NamedTuple):
    """Reason why a pair cannot become tokens."""

    code: str
    message: str


class _Template:
    """A template that runs within limits (limited.py), and is traced if that is sound."""

    def __init__(self, source: str, day: date | None, variables: dict[str, Any]) -> None:
        self.process = TemplateProcess(source, day, variables)
        self._trace: TracedTemplate | None = None
        # Runs after the template's own process has compiled it: compiling runs constants.
        self._start_trace = partial(trace_template, source, sandbox(day=day), variables)
        self._has_run = False

    def render(self, messages: list[Message], tools: Tools, *, add_generation_prompt: bool) -> str:
        """Return the text of a dialogue; raise one of TEMPLATE_FAULTS if the template refuses."""
        run = partial(
            self.process.render, messages, tools, add_generation_prompt=add_generation_prompt
        )
        if tools is not None or not all(len(message) == 2 for message in messages):
            return run()
        if self._trace is not None:
            return self._trace.join(messages, run, add_generation_prompt=add_generation_prompt)
        text = run()
        if not self._has_run:
            self._trace, self._has_run = self._start_trace(), True
        return text


_Key = tuple[str, date | None, bytes]  # of a template: its source, the day, its variables
_templates: dict[_Key, _Template] = {}
"""Templates of this process, shared by all shards; the most recently used ones are kept."""
_KEPT = 4


def _template_of(key: _Key) -> _Template:
    found = _templates.pop(key, None) or _Template(*key[:2], orjson.loads(key[2]))
    _templates[key] = found
    if len(_templates) > _KEPT:
        _templates.pop(next(iter(_templates))).process.close_when_idle()
    return found


@atexit.register
def _close_all() -> None:
    for template in _templates.values():
        template.process.close()
    _templates.clear()


class Renderer:
    """Renderer of messages with one target's template, run within limits (limited.py)."""

    def __init__(self, target: TokenizerSpec, options: TokenOptions) -> None:
        self._target = target
        self._options = options
        self._breaches = 0
        self._last_prompt: tuple[list[Message], list[Any] | None, str] | None = None
        variables = {**target.special_tokens, **options.chat_template_kwargs}
        self._serialized = orjson.dumps(variables, option=orjson.OPT_SORT_KEYS)

    @property
    def end_of_turn(self) -> str | None:
        return self._target.special_tokens.get("eos_token")

    def render(self, messages: list[Message], tools: Tools, *, add_generation_prompt: bool) -> str:
        """Return the text of a dialogue; raise one of TEMPLATE_FAULTS if the template refuses."""
        template = _template_of(self._key(tools))
        try:
            return template.render(messages, tools, add_generation_prompt=add_generation_prompt)
        except TemplateLimitError as error:
            self._breaches += 1
            if self._breaches < MOST_BREACHES:
                raise
            problem = f"exceeds its limits for {MOST_BREACHES} rows; for the last, {error}"
            remedy = "name another template with chat_template: FILE"
            raise UsageError("E184", "chat template", problem, remedy) from error

    @cached_property
    def keeps_reasoning(self) -> bool:
        """Return whether the template writes the reasoning of a last turn."""
        answer = {"role": "assistant", "content": "No.", **dict.fromkeys(REASONING, _SIGN)}
        text = self._try([{"role": "user", "content": "Why?"}, answer], None, ends=True)
        return text is not None and _SIGN in text

    def without_empty_system(self, prompt: list[Message], tools: Tools) -> list[Message]:
        """Return a prompt without an empty system turn that hides the template's own system text.

        A template has one of its own if a dialogue without a system turn renders longer than the
        same dialogue with an empty one, or if it refuses system turns.
        """
        if len(prompt) < 2 or prompt[0]["role"] not in _SYSTEM or prompt[0]["content"].strip():
            return prompt
        empty = [{**prompt[0], "content": ""}, *prompt[1:]]
        texts = [self._try(turns, tools) for turns in (prompt[1:], empty)]
        without, given = texts
        if without is not None and (given is None or len(without) > len(given)):
            return prompt[1:]
        return prompt

    def _try(self, messages: list[Message], tools: Tools, *, ends: bool = False) -> str | None:
        try:
            return self.render(messages, tools, add_generation_prompt=not ends)
        except TEMPLATE_FAULTS:
            return None

    def chat(self, pair: Dialogues) -> PairTexts | Refusal:
        """Return the texts of a pair of dialogues."""
        prompt, *sides, tools = pair
        try:
            before = self._prompt(prompt, tools)
            after = [self.render(prompt + s, tools, add_generation_prompt=False) for s in sides]
        except TemplateLimitError as error:
            return Refusal("PD718", f"the template exceeds its limits for this dialogue: {error}")
        except TEMPLATE_FAULTS as error:
            reason = quote(" ".join(str(error).split()), 200)
            return Refusal("PD711", f"the chat template refuses this dialogue: {reason}")
        return PairTexts(before, *after)

    def _prompt(self, prompt: list[Message], tools: Tools) -> str:
        """Return a rendered prompt; its pairs are adjacent, so only the first one renders it."""
        if self._last_prompt is None or self._last_prompt[:2] != (prompt, tools):
            text = self.render(prompt, tools, add_generation_prompt=True)
            self._last_prompt = (prompt, tools, text)
        return self._last_prompt[2]

    def text(self, pair: Dialogues, escaper: ControlTokenEscaper | None) -> PairTexts:
        """Return the texts of a pair without a template: verbatim, ended by EOS."""
        end = self.end_of_turn
        if end is None:
            problem = "has no eos_token, which must end a completion in plain text"
            raise UsageError("C116", self._target.name, problem, "use another tokenizer")
        before, *sides = ("".join(turn["content"] for turn in turns) for turns in pair[:3])
        texts = [before + (side if side.endswith(end) else side + end) for side in sides]
        if escaper is not None:
            texts = [escaper.end_with(text, end) for text in texts]
        return PairTexts(before, *texts)

    def _key(self, tools: Tools) -> _Key:
        source = self._target.template(has_tools=tools is not None)
        if source is None:
            problem = "has no chat template, but the data are dialogues"
            remedy = "use an instruct model's tokenizer, or set chat_template: FILE"
            raise UsageError("C115", self._target.name, problem, remedy)
        return source, self._options.template_date, self._serialized


def read_pairs(records: pa.Table) -> list[Dialogues]:
    """Return the dialogues of each record as templates expect them."""
    columns = [_read_messages(records[name]) for name in ("prompt", "chosen", "rejected")]
    tools = [None if text is None else orjson.loads(text) for text in records["tools"].to_pylist()]
    return [Dialogues(*pair) for pair in zip(*columns, tools, strict=True)]


def _read_messages(column: pa.ChunkedArray) -> list[list[Message]]:
    """Return a column of messages.

    Fields are converted one by one: converting the nested column at once takes five times as long.
    """
    lists = whole(column)
    flat = lists.flatten()
    fields = [flat.field(name) for name in flat.type.names]
    # A field that is all null, as most are, costs nothing.
    values = [f.to_pylist() if f.null_count < len(f) else [None] * len(f) for f in fields]
    messages = [plain_message(*message) for message in zip(*values, strict=True)]
    lengths = lists.value_lengths().to_pylist()
    ends = 0
    rows = []
    for length in lengths:
        rows.append(messages[ends : ends + length])
        ends += length
    return rows
