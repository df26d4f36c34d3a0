"""Canonical JSON, equal for equal content, and the ids that are hashes of it."""

from typing import Any

import orjson
from blake3 import blake3

# A message is a tuple in the order of records.MESSAGE:
# (role, content, name, tool_calls, tool_call_id, reasoning).
Message = tuple[str, str, str | None, str | None, str | None, str | None]
Messages = list[Message]

ID_BYTES = 16


def canonical_json(value: Any) -> str:
    """Write JSON with sorted keys, no spaces and shortest numbers; equal values give equal text."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str).decode()


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
        if message[3] is not None:
            return list(map(_hashable, messages))
    return messages


def _hashable(message: Message) -> Message:
    calls = message[3]
    return message if calls is None else (*message[:3], sorted_text(calls), *message[4:])


def sorted_text(text: str) -> str:
    """Return JSON text with its keys sorted."""
    return canonical_json(orjson.loads(text))


def messages_json(messages: Messages) -> list[dict[str, str]]:
    """Return messages as objects: role and content, then the fields that are not null."""
    names = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning")
    return [
        {name: value for name, value in zip(names, message, strict=True) if value is not None}
        for message in messages
    ]


def pair_json(prompt: Messages, chosen: Messages, rejected: Messages) -> bytes:
    """Return a pair's canonical JSON, which is kept when the pair is refused."""
    return orjson.dumps(
        {
            "chosen": messages_json(chosen),
            "prompt": messages_json(prompt),
            "rejected": messages_json(rejected),
        }
    )
