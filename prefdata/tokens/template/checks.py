"""Checks of what a rendered pair lost or contains twice, from the dialogue and its text.

Words do not show whether a template leaves something out: `find` may occur in a text as well as in
a call. So a dialogue with tools, calls, results, reasoning or names is rendered a second time with
a mark in place of each, and the missing marks name what is lost.
"""

import json
import re
from collections.abc import Iterator

from prefdata.records.secrets import quote
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.template.markers import Kind, is_special, mark
from prefdata.tokens.template.render import Dialogues, PairTexts, Refusal, Renderer

# A tag that opens a part of a turn, at the end of a prompt: <think>, [THINK].
_OPENED = re.compile(r"(<[^<>/\s]{1,40}>|\[[A-Z_]{1,40}\])$")
# Templates rewrite thoughts, with line breaks of their own, and drop those of earlier turns.
_THOUGHTS = re.compile("</?think>")
_TAIL = 80  # characters at the end of a prompt that may contain such a tag
_TWICE = re.compile(r"<think>\s*<think>")
_SIDES = ("chosen", "rejected")


def judge(
    texts: PairTexts, pair: Dialogues, renderer: Renderer, options: TokenOptions
) -> tuple[Refusal | None, tuple[str, ...]]:
    """Return the reason to refuse a pair, if any, and the codes to report for it."""
    found = [
        *_foreign_prompt(texts),
        *_opened_twice(texts, pair),
        *_dropped_texts(texts, pair),
    ]
    if is_special([*pair.prompt, *pair.chosen, *pair.rejected], pair.tools):
        found += _lost(pair, renderer)
    for one in found:
        if options.refuses(one.code):
            return one, ()
    return None, tuple(dict.fromkeys(one.code for one in found))


def find_lost(text: str, prompt: list[Message], renderer: Renderer) -> str | None:
    """Return what a template drops from a prompt without an answer; None if nothing is lost."""
    if dropped := find_dropped_text(text, prompt):
        return f"the chat template drops the {dropped}"
    if not is_special(prompt, None):
        return None
    found = _lost(Dialogues(prompt, [], [], None), renderer)
    return next((one.message for one in found if one.code == "PD707"), None)


def _foreign_prompt(texts: PairTexts) -> list[Refusal]:
    """Report PD701 if the rendered prompt is not the beginning of the prompt with its answer."""
    for side, text in zip(_SIDES, texts[1:], strict=True):
        if not text.startswith(texts.prompt):
            problem = f"the rendered prompt is not the beginning of prompt + {side}"
            return [Refusal("PD701", problem)]
    return []


def _opened_twice(texts: PairTexts, pair: Dialogues) -> list[Refusal]:
    """Report PD715 if an open part is opened again, as `<think>` after `<think>`."""
    tail = texts.prompt[-_TAIL:].rstrip()
    opened = _OPENED.search(tail) if tail.endswith((">", "]")) else None
    for side, text, turns in zip(_SIDES, texts[1:], pair.sides, strict=True):
        answer = text[len(texts.prompt) :] if text.startswith(texts.prompt) else ""
        if opened and answer.lstrip().startswith(opened.group(1)):
            again = f"the rendered prompt ends with {opened.group(1)}, and {side} begins with it"
            return [Refusal("PD715", again)]
        if _opens_twice(answer) and not any(_opens_twice(turn["content"]) for turn in turns):
            return [Refusal("PD715", f"the template and the text of {side} both open <think>")]
        for turn in turns:
            if "reasoning" in turn and "<think>" in turn["content"]:
                twice = f"{side} has its reasoning twice: as a field and in its text"
                return [Refusal("PD715", twice)]
    return []


def _opens_twice(text: str) -> bool:
    return "<think>" in text and _TWICE.search(text) is not None


def _dropped_texts(texts: PairTexts, pair: Dialogues) -> list[Refusal]:
    """Report PD707 if a text of the pair is missing from the rendered text."""
    for side, text, turns in zip(_SIDES, texts[1:], pair.sides, strict=True):
        if dropped := find_dropped(text, turns):
            return [Refusal("PD707", f"the chat template drops the {dropped} in {side}")]
    if dropped := find_dropped_text(texts.prompt, pair.prompt):
        return [Refusal("PD707", f"the chat template drops the {dropped} in the prompt")]
    return []


def _lost(pair: Dialogues, renderer: Renderer) -> list[Refusal]:
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


def _name(kind: Kind, what: str, *, knows: bool) -> Refusal:
    if kind == "name":
        return Refusal("PD717", f"the chat template does not write the {what}")
    if kind == "reasoning" and knows:
        return Refusal("PD719", f"the chat template leaves out the {what}")
    return Refusal("PD707", f"the chat template drops the {what}")


def find_dropped(rendered: str, completion: list[Message]) -> str | None:
    """Return the part of a completion that the rendered dialogue lacks; None if it lacks none."""
    for number, message in enumerate(completion):
        is_last = number == len(completion) - 1
        for what, text in _pieces(message, is_last=is_last):
            if text.strip() not in rendered:
                return what
    return None


def find_dropped_text(rendered: str, prompt: list[Message]) -> str | None:
    """Return the turn of a prompt that the rendered text lacks; earlier thoughts may be dropped."""
    at = 0
    for message in prompt:
        text = message["content"]
        if message["role"] == "assistant":
            text = _pieces_by_thought(text)[-1]
        found = rendered.find(text.strip(), at)
        if found >= 0:
            at = found
        elif not _holds(rendered, text.strip()):
            return f"content of the {message['role']}'s turn"
    return None


def _holds(rendered: str, text: str) -> bool:
    """Return whether a text is contained, as it is or as JSON writes it."""
    forms = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return any(form in rendered for form in forms)


def _pieces_by_thought(text: str) -> list[str]:
    """Return the text around and within thoughts, piece by piece."""
    return _THOUGHTS.split(text) if "think>" in text else [text]


def _pieces(message: Message, *, is_last: bool) -> Iterator[tuple[str, str]]:
    said = _pieces_by_thought(message["content"])
    for text in said if is_last else said[-1:]:
        yield f"content of the {message['role']}'s turn", text
    if is_last and "reasoning" in message:
        yield "reasoning", message["reasoning"]
    for call in message.get("tool_calls", []):
        function = call.get("function", call) if isinstance(call, dict) else {}
        name = str(function.get("name", ""))
        yield f"call of {quote(name, 80)!r}", name
