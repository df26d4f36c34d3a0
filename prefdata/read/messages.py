"""Values of raw rows to canonical messages."""

from collections.abc import Mapping
from typing import Any

import orjson

from prefdata.read.canonical import Message, Messages, given_json
from prefdata.read.faults import RowFault

REASONING = ("reasoning", "reasoning_content", "thinking")
TOOL_CALLS = "tool_calls"  # a role of ours in a layout's map: the text is a call, not content


def text_message(role: str, text: str) -> Message:
    return (role, text, None, None, None, None)


def read_messages(place: str, value: Any, roles: Mapping[str, str]) -> Messages:
    """A dialogue: text (one user turn), one message, or a list of messages."""
    if type(value) is list:
        return [_message(place, item, roles) for item in value]
    if type(value) is str:
        return [text_message("user", value)]
    return [_message(place, value, roles)]


def read_completion(place: str, value: Any, roles: Mapping[str, str]) -> Messages:
    """A completion: text (one assistant turn), one message, or a list of messages."""
    if type(value) is str:
        return [text_message("assistant", value)]
    return read_messages(place, value, roles)


def read_tools(place: str, value: Any) -> str | None:
    """Tool definitions as JSON text, or None where there are none."""
    if value is None or value in ("", []):
        return None
    tools = _from_json(place, value) if type(value) is str else value
    if type(tools) is not list:
        raise RowFault("R210", f"`{place}` is not a list of tools")
    return given_json(tools) if tools else None


def _message(place: str, item: Any, roles: Mapping[str, str]) -> Message:
    if type(item) is not dict:
        raise RowFault("R210", f"`{place}` holds something that is not a message")
    role, content = item.get("role"), item.get("content")
    if role is None and "from" in item:
        role, content = item["from"], item.get("value")
    if type(role) is not str:
        raise RowFault("R211" if role is None else "R210", f"a message of `{place}` has no role")
    role = roles.get(role, role)
    if type(content) is str and len(item) == 2 and role != TOOL_CALLS:  # most messages by far
        return (role, content, None, None, None, None)
    if role == TOOL_CALLS:
        return _call_message(place, content)
    return _full_message(place, role, content, item)


def _full_message(place: str, role: str, content: Any, item: dict[str, Any]) -> Message:
    calls = item.get("tool_calls")
    if type(calls) is str:
        calls = _from_json(place, calls)
    if content is None and not calls:
        raise RowFault("R211", f"a message of `{place}` has no content")
    reasoning = next((item[key] for key in REASONING if item.get(key) is not None), None)
    return (
        role,
        _content_text(place, content),
        _optional_text(place, item.get("name")),
        given_json(calls) if calls else None,
        _optional_text(place, item.get("tool_call_id")),
        _optional_text(place, reasoning),
    )


def _call_message(place: str, text: Any) -> Message:
    if type(text) is not str:
        raise RowFault("R210", f"a function call of `{place}` is not text")
    call = _from_json(place, text)
    calls = [{"type": "function", "function": one} for one in _as_list(call)]
    return ("assistant", "", None, given_json(calls), None, None)


def _content_text(place: str, content: Any) -> str:
    if type(content) is str:
        return content
    if content is None:
        return ""
    if type(content) is not list:
        raise RowFault("R210", f"the content of a message of `{place}` is not text")
    return "".join(_part_text(place, part) for part in content)


def _part_text(place: str, part: Any) -> str:
    text = part.get("text") if type(part) is dict and part.get("type") == "text" else None
    if type(text) is not str:
        raise RowFault("R210", f"a message of `{place}` holds a part that is not text")
    return text


def _optional_text(place: str, value: Any) -> str | None:
    if value is not None and type(value) is not str:
        raise RowFault("R210", f"a message of `{place}` has a field that is not text")
    return value


def _from_json(place: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RowFault("R210", f"`{place}` holds text that is not JSON: {error.msg}") from None


def _as_list(value: Any) -> list[Any]:
    return value if type(value) is list else [value]
