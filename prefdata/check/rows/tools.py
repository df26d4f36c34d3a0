"""Tool calls and results that a chat template could not render."""

from typing import Any

import orjson


def is_malformed(message: dict[str, Any], *, has_tools: bool) -> bool:
    """Check for an invalid tool call, or a result without its call or tool."""
    if message["role"] == "tool" and not (message["tool_call_id"] or message["name"]):
        return True
    calls = message["tool_calls"]
    if calls is None:
        return False
    parsed = orjson.loads(calls)  # canonical JSON by construction
    return not has_tools or type(parsed) is not list or not all(map(_is_call, parsed))


def _is_call(call: Any) -> bool:
    if type(call) is not dict:
        return False
    function = call.get("function", call)
    if type(function) is not dict or not isinstance(function.get("name"), str):
        return False
    arguments = function.get("arguments", {})
    if type(arguments) is str:
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return False
    return type(arguments) is dict
