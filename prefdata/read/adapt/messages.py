"""Canonical messages from the values of raw rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefdata.read.adapt.content_parts import from_json, read_parts
from prefdata.read.adapt.ids import (
    CONTENT,
    NAME,
    REASONING,
    ROLE,
    TOOL_CALL_ID,
    TOOL_CALLS,
    Message,
    Messages,
    changed,
    given_json,
)
from prefdata.read.adapt.message_cells import parse_cell
from prefdata.read.faults import RowError
from prefdata.read.limits import Limits

SYSTEM = ("system", "developer")
OURS = frozenset({*SYSTEM, "user", "assistant", "tool"})
CALL = "tool_calls"  # a turn whose text is a call, not content

USUAL: Mapping[str, str] = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "function_call": CALL,
    "tool_call": CALL,
}
"""ShareGPT's names and similar ones, case-sensitive: `Assistant` may be somebody's name."""


def our_role(role: str, roles: Mapping[str, str]) -> str:
    """Return our name of a role: by the layout, then by USUAL; unknown names are kept (PD204).

    >>> our_role("gpt", {}), our_role("user", {}), our_role("narrator", {})
    ('assistant', 'user', 'narrator')
    """
    return roles[role] if role in roles else USUAL.get(role, role)


REASONING_KEYS = ("reasoning", "reasoning_content", "thinking")


def text_message(role: str, text: str) -> Message:
    return (role, text, None, None, None, None)


def alternate(rounds: Iterable[Sequence[str]]) -> Messages:
    """Return the dialogue of rounds, each a text of the user and the assistant's answer to it."""
    return [
        text_message(role, text)
        for one in rounds
        for role, text in zip(("user", "assistant"), one, strict=True)
    ]


def read_messages(place: str, value: Any, roles: Mapping[str, str]) -> Messages:
    """Read a dialogue: text (one user turn), one message, or a list of messages."""
    if type(value) is str:
        return [text_message("user", value)]
    messages: Messages = []
    is_plain = True
    for item in value if type(value) is list else [value]:
        if type(item) is dict and len(item) == 2:  # most messages
            role, content = item.get("role"), item.get("content")
            if type(role) is str and type(content) is str and role in OURS and role not in roles:
                messages.append((role, content, None, None, None, None))
                is_plain = is_plain and role != "tool"
                continue
        is_plain = False
        if type(item) is dict and type(item.get("content")) is list:
            messages += _messages_of_parts(place, item, roles)
        else:
            messages.append(_message(place, item, roles))
    return messages if is_plain else _name_results(messages)


def read_completion(place: str, value: Any, roles: Mapping[str, str]) -> Messages:
    """Read a completion: text (one assistant turn), one message, or a list of messages."""
    if type(value) is str:
        return [text_message("assistant", value)]
    return read_messages(place, value, roles)


def read_tools(place: str, value: Any) -> str | None:
    """Return tool definitions as JSON text, or None if there are none."""
    if value is None or value in ("", []):
        return None
    tools = parse_cell(place, value, Limits()) if type(value) is str else value
    if type(tools) is not list:
        raise RowError("R210", f"`{place}` is not a list of tools")
    return given_json(tools) if tools else None


def _message(place: str, item: Any, roles: Mapping[str, str]) -> Message:
    if type(item) is not dict:
        raise RowError("R210", f"`{place}` holds something that is not a message")
    content = item.get("content")
    role = _role(place, item, roles)
    if content is None and "value" in item:
        content = item["value"]
    if type(content) is str and len(item) == 2 and role != CALL:
        return (role, content, None, None, None, None)
    if role == CALL:
        return _call_message(place, content)
    return _full_message(place, role, content, item)


def _role(place: str, item: dict[str, Any], roles: Mapping[str, str]) -> str:
    role = item.get("role")
    if role is None:
        role = item.get("from")
    if type(role) is not str:
        raise RowError("R211" if role is None else "R210", f"a message of `{place}` has no role")
    return our_role(role, roles)


def _full_message(place: str, role: str, content: Any, item: dict[str, Any]) -> Message:
    calls = item.get("tool_calls")
    if type(calls) is str:
        calls = from_json(place, calls)
    if content is None and not calls:
        raise RowError("R211", f"a message of `{place}` has no content")
    reasoning = next((item[key] for key in REASONING_KEYS if item.get(key) is not None), None)
    return (
        role,
        _content_text(place, content),
        _optional_text(place, item.get("name")),
        given_json(calls) if calls else None,
        _optional_text(place, item.get("tool_call_id")),
        _optional_text(place, reasoning),
    )


def _name_results(messages: Messages) -> Messages:
    """Name the tool of results without call id and name: those of the last calls, in order."""
    if not any(map(_is_unnamed, messages)):
        return messages
    named: Messages = []
    waiting: list[str] = []
    for turn in messages:
        if turn[TOOL_CALLS] is not None:
            waiting = _names(from_json("tool_calls", turn[TOOL_CALLS]))
        if turn[ROLE] == "tool" and waiting:
            name = waiting.pop(0)
            if _is_unnamed(turn):
                turn = changed(turn, NAME, name)
        named.append(turn)
    return named


def _is_unnamed(turn: Message) -> bool:
    return turn[ROLE] == "tool" and turn[NAME] is None and turn[TOOL_CALL_ID] is None


def _names(calls: Any) -> list[str]:
    """Return the names of the called tools; malformed calls are skipped (PD211 reports them)."""
    of_calls = [call.get("function") for call in _as_list(calls) if type(call) is dict]
    return [str(one.get("name")) for one in of_calls if type(one) is dict]


def _call_message(place: str, text: Any) -> Message:
    if type(text) is not str:
        raise RowError("R210", f"a function call of `{place}` is not text")
    call = from_json(place, text)
    calls = [{"type": "function", "function": one} for one in _as_list(call)]
    return ("assistant", "", None, given_json(calls), None, None)


def _content_text(place: str, content: Any) -> str:
    if content is None:
        return ""
    if type(content) is not str:
        raise RowError("R210", f"the content of a message of `{place}` is not text")
    return content


def _messages_of_parts(place: str, item: dict[str, Any], roles: Mapping[str, str]) -> Messages:
    """Read a message whose content is a list of parts; keep its other fields."""
    *results, last = read_parts(place, _role(place, item, roles), item["content"])
    if len(item) > 2 and not results and last[TOOL_CALLS] is None and last[TOOL_CALL_ID] is None:
        full = _full_message(place, last[ROLE], last[CONTENT], item)
        last = changed(full, REASONING, last[REASONING] or full[REASONING])
    return [*results, last]


def _optional_text(place: str, value: Any) -> str | None:
    if value is not None and type(value) is not str:
        raise RowError("R210", f"a message of `{place}` has a field that is not text")
    return value


def _as_list(value: Any) -> list[Any]:
    return value if type(value) is list else [value]
