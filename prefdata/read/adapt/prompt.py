"""Prompts of rows: text, messages or a transcript, with system turn and earlier turns."""

from typing import Any

from prefdata.read.adapt.fields import at_path, optional, optional_text, require
from prefdata.read.adapt.ids import CONTENT, ROLE, Messages
from prefdata.read.adapt.messages import SYSTEM, alternate, read_messages, text_message
from prefdata.read.adapt.sides import drop_open_turn, read_transcript
from prefdata.read.faults import RowError
from prefdata.read.layouts.model import Layout


class PromptReader:
    """Reader of the prompts of one layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        path = layout.prompt
        self.is_transcript = isinstance(path, str) and layout.columns.get(path) == "hh"

    def is_text(self, row: dict[str, Any]) -> bool:
        """Return whether the row's prompt is text, not messages."""
        path = self.layout.prompt
        return isinstance(path, list) or (path is not None and type(at_path(path, row)) is str)

    def read(self, row: dict[str, Any]) -> Messages:
        """Return the turns before the completion."""
        layout = self.layout
        if isinstance(layout.prompt, list):
            parts = [optional_text(path, at_path(path, row)) for path in layout.prompt]
            said = [text_message("user", layout.join.join(part for part in parts if part))]
        else:
            path = layout.prompt or ""
            value = require(path, at_path(path, row), "any")
            if self.is_transcript:
                said = drop_open_turn(read_transcript(path, value, layout.roles))
            else:
                said = read_messages(path, value, layout.roles)
        if layout.history:
            said = _history(layout.history, row) + said
        return self.with_system(row, said)

    def with_system(self, row: dict[str, Any], turns: Messages) -> Messages:
        """Put the row's system text before the turns; raise R222 if they open with another."""
        path = self.layout.system
        if not path:
            return turns
        system = _system(path, optional(at_path(path, row)))
        own = [turn for turn in turns[:1] if turn[ROLE] in SYSTEM]
        if not system or (own and own[0][CONTENT] == system[0][CONTENT]):
            return turns
        if own:
            raise RowError(
                "R222", f"`{path}` holds another system text than the dialogue's first turn"
            )
        return system + turns


def _system(path: str, value: Any) -> Messages:
    """Return the system turn of a text, a message or a list of messages, if any."""
    if type(value) not in (list, dict):
        text = optional_text(path, value)
        return [text_message("system", text)] if text else []
    turns = read_messages(path, value, {}) if value else []
    if any(turn[ROLE] not in SYSTEM for turn in turns) or len(turns) > 1:
        raise RowError("R210", f"`{path}` is not one system message")
    return [turn for turn in turns if turn[CONTENT]]


def _history(path: str, row: dict[str, Any]) -> Messages:
    turns = optional(at_path(path, row)) or []
    if type(turns) is not list or any(
        type(turn) is not list or [type(text) for text in turn] != [str, str] for turn in turns
    ):
        raise RowError("R210", f"`{path}` is not a list of [user, assistant] texts")
    return alternate(turns)
