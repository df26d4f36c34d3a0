"""Messages whose content is a list of parts: text, reasoning, tool calls and tool results."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from prefdata.read.adapt.ids import CONTENT, Messages, given_json
from prefdata.read.faults import RowError

CALLS = ("tool_use", "tool_call", "tool_calls", "function_call")
REASONING_PARTS = ("thinking", "reasoning")


class Said(NamedTuple):
    """Contents of the parts of one message."""

    texts: list[str]
    reasoning: list[str]
    calls: list[dict[str, Any]]
    results: list[tuple[str | None, str]]
    """Call id and text of each tool result."""


def read_parts(place: str, role: str, parts: list[Any]) -> Messages:
    """Return one tool message for each result, then the message of all other parts."""
    said = Said([], [], [], [])
    for part in parts:
        if type(part) is not dict:
            raise RowError("R210", f"a message of `{place}` holds a part that is not an object")
        _add(said, place, part)
    results: Messages = [("tool", text, None, None, call, None) for call, text in said.results]
    if results and not (said.texts or said.calls or said.reasoning):
        return results
    calls = given_json(said.calls) if said.calls else None
    reasoning = "\n".join(said.reasoning) if said.reasoning else None
    return [*results, (role, "".join(said.texts), None, calls, None, reasoning)]


def _add(said: Said, place: str, part: Mapping[str, Any]) -> None:
    kind = part.get("type")
    if kind in REASONING_PARTS:
        said.reasoning.append(_text(place, part, (kind, "value", "text")))
    elif kind in CALLS:
        said.calls.extend(_calls(place, part))
    elif kind == "tool_result":
        call = part.get("tool_use_id")
        said.results.append((call if type(call) is str else None, _result(place, part)))
    elif kind == "text":
        said.texts.append(_text(place, part, ("text", "value")))
    else:
        raise RowError("R210", f"a message of `{place}` holds a part that is not text: {kind}")


def _text(place: str, part: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    text = next((part[key] for key in keys if part.get(key) is not None), None)
    if type(text) is not str:
        raise RowError("R210", f"a message of `{place}` holds a part that is not text")
    return text


def _calls(place: str, part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield calls in OpenAI's form. Anthropic's have `name` and `input`, others a JSON `value`."""
    if "value" in part:
        value = from_json(place, part["value"])
        for call in value if type(value) is list else [value]:
            if type(call) is not dict:
                raise RowError("R210", f"`{place}` holds a tool call that is not an object")
            yield call if "function" in call else {"type": "function", "function": call}
        return
    function = {"name": part.get("name"), "arguments": part.get("input", part.get("arguments"))}
    call = {"id": part["id"]} if part.get("id") else {}
    yield {**call, "type": "function", "function": function}


def _result(place: str, part: Mapping[str, Any]) -> str:
    content = part.get("content", "")
    if type(content) is str:
        return content
    if type(content) is not list:
        raise RowError("R210", f"a tool's result in `{place}` is not text")
    (message,) = read_parts(place, "tool", content)
    return message[CONTENT]


def from_json(place: str, value: Any) -> Any:
    """Parse JSON text; return any other value unchanged."""
    if type(value) is not str:
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RowError("R210", f"`{place}` holds text that is not JSON: {error.msg}") from None
