"""What a chat template left out of a completion (PD707)."""

import re
from collections.abc import Iterator

from prefdata.tokens.template import Message

# Templates write thoughts anew, between line breaks of their own, and drop those of earlier turns.
_THOUGHTS = re.compile("</?think>")


def find_dropped(rendered: str, completion: list[Message]) -> str | None:
    """What of a completion the rendered dialogue does not have; None where it has everything."""
    for number, message in enumerate(completion):
        is_last = number == len(completion) - 1
        for what, text in _pieces(message, is_last=is_last):
            if text.strip() not in rendered:
                return what
    return None


def _pieces(message: Message, *, is_last: bool) -> Iterator[tuple[str, str]]:
    said = _THOUGHTS.split(message["content"])
    for text in said if is_last else said[-1:]:
        yield f"content of the {message['role']}'s turn", text
    if is_last and "reasoning" in message:
        yield "reasoning", message["reasoning"]
    for call in message.get("tool_calls", []):
        function = call.get("function", call) if isinstance(call, dict) else {}
        name = str(function.get("name", ""))
        yield f"call of {name!r}", name
