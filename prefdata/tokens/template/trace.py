r"""Traces of chat templates: a template runs once per kind of dialogue; others are joined.

A template gets stand-ins instead of the texts of a dialogue. A stand-in has the text, but only
answers questions about it, such as whether it contains `</think>` or is empty, and each question
is logged with its answer. The output is then known as literal pieces with the texts, or parts of
them, in between:

    asked     does text 1 start with "<tool_response>"? no.
    put out   "<|im_start|>user\n", text 1, "<|im_end|>\n<|im_start|>assistant\n"

Every dialogue with the same roles and the same answers gets the same pieces, so its text is joined
without running the template. A question that a stand-in cannot answer, such as its length, ends
the trace; dialogues that reach it are rendered in the ordinary way.
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

MOST_JOINED = 32 << 20  # characters that are joined without the limited process
MOST_PATHS = 4096  # of one template; dialogues beyond them are rendered in the ordinary way


# Nodes that capture output as text, which a template could then inspect without being logged.
_CATCHES_OUTPUT = (nodes.Macro, nodes.AssignBlock, nodes.FilterBlock, nodes.Block)


class _Fork:
    """A question in a trace, and the next step for each answer; None if not seen yet."""

    __slots__ = ("question", "ways")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.ways: dict[bool, _Fork | _End | None] = {True: None, False: None}


class _End(NamedTuple):
    """The end of a trace; it has no parts if the dialogue cannot be traced."""

    parts: Parts
    literals: int
    """Number of characters in the literal parts."""

    def reach(self, texts: Texts) -> int:
        """Return an upper bound on the characters of the joined text."""
        return self.literals + len(self.parts) * MOST_CHANGED * sum(map(len, texts))


Shape = tuple[tuple[str, ...], bool]  # roles of a dialogue, and whether the model's turn is next


class TracedTemplate:
    """A template that runs once per shape of dialogue; later ones are joined from its parts.

    For each shape it has a decision tree: questions, and the outputs that they lead to.
    """

    def __init__(self, template: Template, variables: dict[str, Any], log: Log) -> None:
        self._template, self._variables, self._log = template, variables, log
        self._ways: dict[Any, _Fork | _End | None] = {}
        self._num_paths = 0
        self._one_run = Lock()  # builds in two threads share a template, but a log holds one run

    def join(
        self,
        messages: Sequence[Message],
        ordinary: Callable[[], str],
        *,
        add_generation_prompt: bool,
    ) -> str:
        """Return the text of messages that have only a role and content.

        `ordinary` renders them without a trace; it raises one of TEMPLATE_FAULTS if the template
        refuses them.
        """
        texts = [message["content"] for message in messages]
        shape = (tuple([message["role"] for message in messages]), add_generation_prompt)
        end = self._find(shape, texts)
        if end is None:
            text = ordinary()
            if self._num_paths < MOST_PATHS:
                with self._one_run:
                    self._run(shape, texts, text)
            return text
        if not end.parts or (len(end.parts) > 8 and end.reach(texts) > MOST_JOINED):
            return ordinary()  # which has the limits
        return join_parts(end.parts, texts)

    def _find(self, shape: Shape, texts: Texts) -> _End | None:
        """Return the end of this dialogue's path; None if no run has taken it."""
        way = self._ways.get(shape)
        while type(way) is _Fork:
            way = way.ways[way.question(texts)]
        return way  # type: ignore[return-value]

    def _run(self, shape: Shape, texts: Texts, text: str) -> None:
        """Trace a dialogue; its path is untraceable if the trace does not give its text."""
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
        self._add(shape, log.asked, end)

    def _add(self, shape: Shape, asked: list[tuple[Question, bool]], end: _End) -> None:
        """Add the path of one run to those of earlier runs."""
        self._num_paths += 1
        ways, key = self._ways, shape
        for question, answer in asked:
            fork = ways.get(key)
            if type(fork) is not _Fork:
                fork = ways[key] = _Fork(question)
            ways, key = fork.ways, answer  # type: ignore[assignment]
        ways[key] = end


def trace_template(
    source: str, environment: Environment, variables: dict[str, Any]
) -> TracedTemplate | None:
    """Return a traceable version of a template; None if it could inspect its own output.

    `environment` is changed, so nothing else may use it.
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
    """Return the output with its marks replaced by their parts, and literals joined.

    A role that contains a mark makes a trace that does not give its text; the caller checks that.
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
