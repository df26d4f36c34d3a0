r"""A chat template, run once for each shape of a dialogue and then only joined.

A template is given stand-ins in place of the texts of a dialogue. A stand-in has the text, but
shows of it only what is asked for, and each question is written down with its answer: does it
contain `</think>`, is it empty. What the template puts out is then known as literal pieces with
the texts, or parts of them, in between:

    asked     does text 1 start with "<tool_response>"? no.
    put out   "<|im_start|>user\n", text 1, "<|im_end|>\n<|im_start|>assistant\n"

Every dialogue with the same roles that answers the same questions alike gets the same pieces, so
its text is joined without running the template. What a stand-in cannot answer, such as its
length, ends the trace; dialogues that come to this place are rendered in the ordinary way.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from threading import Lock
from typing import Any, NamedTuple

from jinja2 import Environment, Template, nodes

from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message
from prefdata.tokens.template.traced_str import (
    MARK,
    MOST_CHANGED,
    Log,
    Parts,
    Question,
    Source,
    Texts,
    TracedStr,
    Untraceable,
    join_parts,
)

MOST_JOINED = 32 << 20  # characters that are joined without asking
MOST_PATHS = 4096  # of one template; dialogues beyond them are rendered in the ordinary way


# What catches output and gives it back as text, which could then be looked into unseen.
_CATCHES_OUTPUT = (nodes.Macro, nodes.AssignBlock, nodes.FilterBlock, nodes.Block)


class _Fork:
    """A question on the way of a trace, and the ways on from it; None where none went yet."""

    __slots__ = ("question", "ways")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.ways: dict[bool, _Fork | _End | None] = {True: None, False: None}


class _End(NamedTuple):
    """The end of a trace; no parts where it could not end."""

    parts: Parts
    literals: int
    """Characters of the parts that are the template's own."""

    def reach(self, texts: Texts) -> int:
        """Return more characters than these texts can be joined to."""
        return self.literals + len(self.parts) * MOST_CHANGED * sum(map(len, texts))


Shape = tuple[tuple[str, ...], bool]  # the roles of a dialogue, whether the model's turn is next


class Trace:
    """What is known of one template: for each shape, questions and what they lead to."""

    def __init__(self) -> None:
        self._ways: dict[Any, _Fork | _End | None] = {}
        self._num_paths = 0

    @property
    def is_full(self) -> bool:
        return self._num_paths >= MOST_PATHS

    def find(self, shape: Shape, texts: Texts) -> _End | None:
        """Where dialogues like this one end; None where none has gone this way."""
        way = self._ways.get(shape)
        while type(way) is _Fork:
            way = way.ways[way.question(texts)]
        return way  # type: ignore[return-value]

    def add(self, shape: Shape, asked: list[tuple[Question, bool]], end: _End) -> None:
        """Lay the way of one run beside those before it."""
        self._num_paths += 1
        ways, key = self._ways, shape
        for question, answer in asked:
            fork = ways.get(key)
            if type(fork) is not _Fork:
                fork = ways[key] = _Fork(question)
            ways, key = fork.ways, answer  # type: ignore[assignment]
        ways[key] = end


class TracedTemplate:
    """A template that is run for dialogues of a new kind, and joined for those of a known one."""

    def __init__(self, template: Template, variables: dict[str, Any], log: Log) -> None:
        self._template, self._variables, self._log = template, variables, log
        self._trace = Trace()
        self._one_run = Lock()  # builds in two threads share a template, and a log is of one run

    def join(
        self,
        messages: Sequence[Message],
        ordinary: Callable[[], str],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The text of messages that have a role and content alone.

        `ordinary` renders them without a trace; it raises one of TEMPLATE_FAULTS where the
        template refuses them.
        """
        texts = [message["content"] for message in messages]
        shape = (tuple([message["role"] for message in messages]), add_generation_prompt)
        end = self._trace.find(shape, texts)
        if end is None:
            if self._trace.is_full:
                return ordinary()
            text = ordinary()
            with self._one_run:
                self._run(shape, texts, text)
            return text
        if not end.parts or (len(end.parts) > 8 and end.reach(texts) > MOST_JOINED):
            return ordinary()  # which is where limits are
        return join_parts(end.parts, texts)

    def _run(self, shape: Shape, texts: Texts, text: str) -> None:
        """Trace a dialogue; a trace that does not give its text is of no use."""
        roles, add_generation_prompt = shape
        log = self._log
        log.start()
        messages = [
            {"role": role, "content": TracedStr((itemgetter(place),), content, log)}
            for place, (role, content) in enumerate(zip(roles, texts, strict=True))
        ]
        end = _End((), 0)
        try:
            output = self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
            parts = _split(output, log.put_out)
            if join_parts(parts, texts) == text:
                end = _End(parts, sum(len(part) for part in parts if isinstance(part, str)))
        except (*TEMPLATE_FAULTS, Untraceable):
            pass
        self._trace.add(shape, log.asked, end)


def trace_template(
    source: str, environment: Environment, variables: dict[str, Any]
) -> TracedTemplate | None:
    """The template as one that can be traced; None where its output could be looked into.

    `environment` is changed, so it must serve nothing else.
    """
    tree = environment.parse(source)
    catches = any(tree.find(kind) is not None for kind in _CATCHES_OUTPUT) or any(
        not isinstance(block.call.node, nodes.ExtensionAttribute)
        for block in tree.find_all(nodes.CallBlock)
    )
    if catches or MARK in source or MARK in str(variables):
        return None
    log = Log()
    trim: Callable[..., str] = environment.filters["trim"]
    is_string: Any = environment.tests["string"]
    environment.finalize = log.mark
    environment.filters["trim"] = lambda value, chars=None: (
        value.strip(chars) if type(value) is TracedStr else trim(value, chars)
    )
    environment.tests["string"] = lambda value: type(value) is TracedStr or is_string(value)
    return TracedTemplate(environment.from_string(source), variables, log)


def _split(output: str, put_out: list[Parts]) -> Parts:
    """The output with its marks replaced by the parts that they stand for, literals joined.

    A role with a mark in it makes a trace that does not give its text, which its caller sees.
    """
    pieces = output.split(MARK)  # literal, number, literal, number, …, literal
    found = [put_out[int(piece)] if at % 2 else (piece,) for at, piece in enumerate(pieces)]
    joined: list[str | Source] = [""]
    for part in chain.from_iterable(found):
        if isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)
