"""Dialogues with a mark in place of each thing that a template may leave out."""

import copy
from typing import Any, Literal, NamedTuple

import orjson

from prefdata.records.secrets import quote
from prefdata.tokens.chat_template import REASONING, Message, Tools

Kind = Literal["tools", "call", "result", "reasoning", "name"]
_FIRST_NUMBER = 91_827_300_000  # numeric arguments are marked by numbers, as templates expect


class Sign(NamedTuple):
    """A mark and what it replaces."""

    kind: Kind
    what: str
    text: str


class Marked(NamedTuple):
    """The dialogue to render, and the marks that its text must contain."""

    messages: list[Message]
    tools: Tools
    signs: list[Sign]


def is_special(messages: list[Message], tools: Tools) -> bool:
    """Return whether a dialogue has more than the texts of its turns."""
    return bool(tools) or any(len(m) > 2 or m["role"] == "tool" for m in messages)


def mark(messages: list[Message], tools: Tools, start: int) -> Marked:
    """Return a copy of a dialogue with marks in the tools and in its turns from `start` on."""
    marker = _Marker()
    changed = copy.deepcopy(messages)
    known = copy.deepcopy(tools)
    for tool in known or []:
        marker.tool(tool)
    for message in changed[start:]:
        marker.message(message)
    return Marked(changed, known, marker.signs)


class _Marker:
    """Marks in the order in which they are set."""

    def __init__(self) -> None:
        self.signs: list[Sign] = []

    def _text(self, kind: Kind, what: str) -> str:
        text = f"qz{len(self.signs)}xj"
        self.signs.append(Sign(kind, what, text))
        return text

    def tool(self, tool: Any) -> None:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and "name" in function:
            function["name"] = self._text("tools", "tools")

    def message(self, message: Message) -> None:
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            self._call(call)
        if message["role"] == "tool" and message["content"].strip():
            message["content"] = self._text("result", "result of a tool")
        elif "name" in message:
            message["name"] = self._text("name", f"name of a turn of the {message['role']}")
        if "reasoning" in message:
            text = self._text("reasoning", "reasoning")
            message |= dict.fromkeys(REASONING, text)

    def _call(self, call: Any) -> None:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or "name" not in function:
            return
        name = function["name"]
        function["name"] = self._text("call", f"call of {quote(str(name), 80)!r}")
        arguments = function.get("arguments")
        what = f"arguments of the call of {quote(str(name), 80)!r}"
        if isinstance(arguments, str):
            function["arguments"] = self._json(arguments, what)
        elif arguments is not None:
            function["arguments"] = self._value(arguments, what)

    def _json(self, text: str, what: str) -> str:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return self._text("call", what)
        return orjson.dumps(self._value(value, what)).decode()

    def _value(self, value: Any, what: str) -> Any:
        if isinstance(value, dict):
            return {key: self._value(one, what) for key, one in value.items()}
        if isinstance(value, list):
            return [self._value(one, what) for one in value]
        if isinstance(value, str):
            return self._text("call", what) if value.strip() else value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = _FIRST_NUMBER + len(self.signs)
            self.signs.append(Sign("call", what, str(number)))
            return number
        return value
