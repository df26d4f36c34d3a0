"""Canonical JSON, equal for equal content, and the ids that are hashes of it."""

from typing import Any, Final, cast

import orjson
from blake3 import blake3

from prefdata.records.rejected import pair_json as json_of_pair
from prefdata.records.schema import Message as Fields

Message = tuple[str, str, str | None, str | None, str | None, str | None]
"""A message while it is read, in the order of its fields: orjson hashes plain tuples as lists."""
Messages = list[Message]
ROLE: Final = 0
CONTENT: Final = 1
NAME: Final = 2
TOOL_CALLS: Final = 3
TOOL_CALL_ID: Final = 4
REASONING: Final = 5

ID_BYTES = 16


def changed(message: Message, place: int, value: str | None) -> Message:
    """Return the message with another value of the field at `place`."""
    return cast(Message, (*message[:place], value, *message[place + 1 :]))


def canonical_json(value: Any) -> str:
    """Write JSON with sorted keys, no spaces and shortest numbers; equal values give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()


def shorten(text: str, most: int) -> str:
    """Return a text of at most `most` characters, for a message."""
    return text if len(text) <= most else text[: most - 1] + "…"


def given_json(value: Any) -> str:
    """Write JSON with keys in the order given, as chat templates print it."""
    return orjson.dumps(value).decode()


def group_digest(form: str, prompt: Messages, tools: str | None) -> bytes:
    """Return the id of a prompt, 16 bytes; all its pairs are one group."""
    said = (form, hashable(prompt), sorted_text(tools) if tools else None)
    return blake3(orjson.dumps(said)).digest(length=ID_BYTES)


def side_digest(completion: Messages) -> bytes:
    """Return the id of a completion, 16 bytes; it does not depend on the prompt."""
    return blake3(orjson.dumps(hashable(completion))).digest(length=ID_BYTES)


def pair_digest(group_id: bytes, chosen_id: bytes, rejected_id: bytes) -> bytes:
    """Return the id of a pair, 16 bytes; the group's id covers form, prompt and tools."""
    return blake3(group_id + chosen_id + rejected_id).digest(length=ID_BYTES)


def hashable(messages: Messages) -> Messages:
    """Return the messages with tool calls in canonical JSON, so that key order changes no id."""
    for message in messages:
        if message[TOOL_CALLS] is not None:
            return [
                changed(turn, TOOL_CALLS, sorted_text(calls))
                if (calls := turn[TOOL_CALLS])
                else turn
                for turn in messages
            ]
    return messages


def sorted_text(text: str) -> str:
    """Return JSON text with its keys sorted."""
    return canonical_json(orjson.loads(text))


def pair_json(prompt: Messages, chosen: Messages, rejected: Messages) -> bytes:
    """Return a pair's canonical JSON, which is kept when the pair is refused."""
    sides = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return json_of_pair(
        {
            side: [dict(zip(Fields.model_fields, turn, strict=True)) for turn in turns]
            for side, turns in sides.items()
        }
    )
