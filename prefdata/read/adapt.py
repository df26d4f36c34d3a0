"""A layout, compiled: raw rows in, canonical pairs out."""

from typing import Any

from prefdata.read.candidates import CandidateReader
from prefdata.read.canonical import Messages, canonical_json, group_digest
from prefdata.read.faults import RowFault
from prefdata.read.fields import (
    MISSING,
    TYPES,
    Getter,
    getter,
    optional,
    optional_number,
    optional_text,
    require,
)
from prefdata.read.layout import Layout
from prefdata.read.limits import Limits, Pairing
from prefdata.read.messages import read_completion, read_messages, read_tools, text_message
from prefdata.read.pairs import Draft, Pair
from prefdata.read.sides import (
    Split,
    read_transcript,
    split_after_prompt,
    split_common_text,
    split_common_turns,
    split_last_turn,
    split_transcripts,
)

NUMBERS = ("score_chosen", "score_rejected", "margin")
TEXTS = ("model_chosen", "model_rejected")


class Adapter:
    """Reads the rows of one layout."""

    def __init__(self, layout: Layout, pairing: Pairing, limits: Limits) -> None:
        self.layout, self.used, self.known = layout, layout.used, layout.known
        self.columns = [
            (path, getter(path), TYPES[kind], kind) for path, kind in layout.columns.items()
        ]
        self.get_chosen, self.get_rejected = (
            getter(layout.chosen or ""),
            getter(layout.rejected or ""),
        )
        self.reader = CandidateReader(layout, pairing, limits) if layout.candidates else None
        self.numbers = _getters(layout, NUMBERS)
        self.texts = _getters(layout, TEXTS)

    def read(self, row: dict[str, Any]) -> Draft:
        """The row's prompt and pairs, or a RowFault."""
        layout = self.layout
        for path, get, types, kind in self.columns:
            if type(row.get(path)) not in types:  # or the path is dotted, or its kind is `any`
                require(path, get(row), kind)
        tools = read_tools(layout.tools, optional(_at(layout.tools, row))) if layout.tools else None
        if self.reader:
            prompt = self._prompt(row)
            group_id = group_digest(layout.form, prompt, tools)
            pairs = self.reader.pairs(row, group_id)
        else:
            prompt, chosen, rejected = self._split(row)
            group_id = group_digest(layout.form, prompt, tools)
            pairs = [self._pair(row, chosen, rejected)]
        weight = self._weight(row, layout.weight) if layout.weight else 1.0
        return Draft(layout.form, prompt, tools, group_id, pairs, weight, self._meta(row))

    def _split(self, row: dict[str, Any]) -> Split:
        sides, roles = self.layout.sides, self.layout.roles
        chosen, rejected = self.get_chosen(row), self.get_rejected(row)
        if type(chosen) is str and type(rejected) is str:  # all rows of the text layouts
            if sides == "last_turn":
                return split_transcripts(chosen, rejected, roles)
            if sides == "common_text":
                return split_common_text(chosen, rejected)
        require(self.layout.chosen or "", chosen, "any")
        require(self.layout.rejected or "", rejected, "any")
        if sides == "completion":
            return Split(
                self._prompt(row),
                read_completion("chosen", chosen, roles),
                read_completion("rejected", rejected, roles),
            )
        return self._split_dialogues(
            row, self._dialogue("chosen", chosen), self._dialogue("rejected", rejected)
        )

    def _split_dialogues(self, row: dict[str, Any], chosen: Messages, rejected: Messages) -> Split:
        if self.layout.sides == "after_prompt":
            return split_after_prompt(self._prompt(row), chosen, rejected)
        if self.layout.sides == "last_turn":
            return split_last_turn(chosen, rejected)
        return split_common_turns(chosen, rejected)

    def _dialogue(self, path: str, value: Any) -> Messages:
        if type(value) is str:
            return read_transcript(path, value, self.layout.roles)
        return read_messages(path, value, self.layout.roles)

    def _prompt(self, row: dict[str, Any]) -> Messages:
        layout = self.layout
        if isinstance(layout.prompt, list):
            parts = [optional_text(path, _at(path, row)) for path in layout.prompt]
            said = [text_message("user", layout.join.join(part for part in parts if part))]
        else:
            assert layout.prompt
            value = require(layout.prompt, _at(layout.prompt, row), "any")
            said = read_messages(layout.prompt, value, layout.roles)
        if layout.history:
            said = self._history(layout.history, row) + said
        system = optional_text(layout.system, _at(layout.system, row)) if layout.system else None
        return [text_message("system", system), *said] if system else said

    def _history(self, path: str, row: dict[str, Any]) -> Messages:
        turns = optional(_at(path, row)) or []
        if type(turns) is not list or any(
            type(turn) is not list or [type(text) for text in turn] != [str, str] for turn in turns
        ):
            raise RowFault("R210", f"`{path}` is not a list of [user, assistant] texts")
        return [
            text_message(role, text)
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]

    def _pair(self, row: dict[str, Any], chosen: Messages, rejected: Messages) -> Pair:
        pair = Pair(chosen, rejected)
        if not (self.numbers or self.texts):
            return pair
        said: dict[str, Any] = {
            name: optional_number(path, get(row)) for name, path, get in self.numbers
        }
        said |= {name: optional_text(path, get(row)) for name, path, get in self.texts}
        return pair._replace(**said)

    def _weight(self, row: dict[str, Any], path: str) -> float:
        weight = optional_number(path, _at(path, row))
        return 1.0 if weight is None else weight

    def _meta(self, row: dict[str, Any]) -> str:
        if self.used.issuperset(row):
            return "{}"
        rest = {name: value for name, value in row.items() if name not in self.used}
        return canonical_json(rest)


def _at(path: str, row: dict[str, Any]) -> Any:
    return getter(path)(row) if "." in path else row.get(path, MISSING)


def _getters(layout: Layout, names: tuple[str, ...]) -> list[tuple[str, str, Getter]]:
    paths = [(name, getattr(layout, name)) for name in names]
    return [(name, path, getter(path)) for name, path in paths if path]
