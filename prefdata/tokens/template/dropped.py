"""Texts of a dialogue that a chat template left out (PD707)."""

import json
import re
from collections.abc import Iterator

from prefdata.tokens.chat_template import Message

# Templates rewrite thoughts, with line breaks of their own, and drop those of earlier turns.
_THOUGHTS = re.compile("</?think>")


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
        yield f"call of {name!r}", name
