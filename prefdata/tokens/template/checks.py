"""Checks of what a rendered pair lost or contains twice, from the dialogue and its text.

Words do not show whether a template leaves something out: `find` may occur in a text as well as in
a call. So a dialogue with tools, calls, results, reasoning or names is rendered a second time with
a mark in place of each, and the missing marks name what is lost.
"""

import re
from typing import NamedTuple

from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message, Tools
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.template.dropped import find_dropped, find_dropped_text
from prefdata.tokens.template.markers import Kind, is_special, mark
from prefdata.tokens.template.render import PairTexts, Refusal, Renderer

# A tag that opens a part of a turn, at the end of a prompt: <think>, [THINK].
_OPENED = re.compile(r"(<[^<>/\s]{1,40}>|\[[A-Z_]{1,40}\])$")
_TAIL = 80  # characters at the end of a prompt that may contain such a tag
_TWICE = re.compile(r"<think>\s*<think>")
_SIDES = ("chosen", "rejected")


class Dialogues(NamedTuple):
    """A pair as it is given to the template."""

    prompt: list[Message]
    sides: tuple[list[Message], list[Message]]
    tools: Tools


class Found(NamedTuple):
    """One fault of a pair."""

    code: str
    message: str


def judge(
    texts: PairTexts, pair: Dialogues, renderer: Renderer, options: TokenOptions
) -> tuple[Refusal | None, tuple[str, ...]]:
    """Return the reason to refuse a pair, if any, and the codes to report for it."""
    found = [
        *_foreign_prompt(texts),
        *_opened_twice(texts, pair),
        *_dropped_texts(texts, pair),
        *(_lost(pair, renderer) if is_special([*pair.prompt, *pair.sides[0], *pair.sides[1]],
                                              pair.tools) else ()),
    ]  # fmt: skip
    for one in found:
        if options.refuses(one.code):
            return Refusal(one.code, one.message), ()
    return None, tuple(dict.fromkeys(one.code for one in found))


def find_lost(text: str, prompt: list[Message], renderer: Renderer) -> str | None:
    """Return what a template drops from a prompt without an answer; None if nothing is lost."""
    if dropped := find_dropped_text(text, prompt):
        return f"the chat template drops the {dropped}"
    if not is_special(prompt, None):
        return None
    found = _lost(Dialogues(prompt, ([], []), None), renderer)
    return next((one.message for one in found if one.code == "PD707"), None)


def _foreign_prompt(texts: PairTexts) -> list[Found]:
    """Report PD701 if the rendered prompt is not the beginning of the prompt with its answer."""
    for side, text in zip(_SIDES, texts[1:], strict=True):
        if not text.startswith(texts.prompt):
            problem = f"the rendered prompt is not the beginning of prompt + {side}"
            return [Found("PD701", problem)]
    return []


def _opened_twice(texts: PairTexts, pair: Dialogues) -> list[Found]:
    """Report PD715 if an open part is opened again, as `<think>` after `<think>`."""
    tail = texts.prompt[-_TAIL:].rstrip()
    opened = _OPENED.search(tail) if tail.endswith((">", "]")) else None
    for side, text, turns in zip(_SIDES, texts[1:], pair.sides, strict=True):
        answer = text[len(texts.prompt) :] if text.startswith(texts.prompt) else ""
        if opened and answer.lstrip().startswith(opened.group(1)):
            again = f"the rendered prompt ends with {opened.group(1)}, and {side} begins with it"
            return [Found("PD715", again)]
        if _opens_twice(answer) and not any(_opens_twice(turn["content"]) for turn in turns):
            return [Found("PD715", f"the template and the text of {side} both open <think>")]
        for turn in turns:
            if "reasoning" in turn and "<think>" in turn["content"]:
                twice = f"{side} has its reasoning twice: as a field and in its text"
                return [Found("PD715", twice)]
    return []


def _opens_twice(text: str) -> bool:
    return "<think>" in text and _TWICE.search(text) is not None


def _dropped_texts(texts: PairTexts, pair: Dialogues) -> list[Found]:
    """Report PD707 if a text of the pair is missing from the rendered text."""
    for side, text, turns in zip(_SIDES, texts[1:], pair.sides, strict=True):
        if dropped := find_dropped(text, turns):
            return [Found("PD707", f"the chat template drops the {dropped} in {side}")]
    if dropped := find_dropped_text(texts.prompt, pair.prompt):
        return [Found("PD707", f"the chat template drops the {dropped} in the prompt")]
    return []


def _lost(pair: Dialogues, renderer: Renderer) -> list[Found]:
    """Return the tools, calls, results, reasoning and names whose mark is not rendered."""
    dialogues = [("the prompt", pair.prompt, 0)]
    dialogues += [
        (side, pair.prompt + turns, len(pair.prompt))
        for side, turns in zip(_SIDES, pair.sides, strict=True)
        if is_special(turns, None)
    ]
    found = []
    for where, messages, start in dialogues:
        marked = mark(messages, pair.tools if start == 0 else None, start)
        tools = marked.tools if start == 0 else pair.tools
        try:
            text = renderer.render(marked.messages, tools, add_generation_prompt=start == 0)
        except TEMPLATE_FAULTS:
            continue  # a template that knows its tools by name; their texts are checked already
        for kind, what, sign in marked.signs:
            if sign not in text:
                knows = kind != "reasoning" or renderer.keeps_reasoning
                named = what if kind == "tools" else f"{what} in {where}"
                found.append(_name(kind, named, knows=knows))
    return found


def _name(kind: Kind, what: str, *, knows: bool) -> Found:
    if kind == "name":
        return Found("PD717", f"the chat template does not write the {what}")
    if kind == "reasoning" and knows:
        return Found("PD719", f"the chat template leaves out the {what}")
    return Found("PD707", f"the chat template drops the {what}")
