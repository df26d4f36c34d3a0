"""Compiled layouts: raw rows in, canonical pairs out."""

from typing import Any

from prefdata.read.adapt.candidates import CandidateReader
from prefdata.read.adapt.columns import Pair, ParsedRow
from prefdata.read.adapt.content_parts import from_json
from prefdata.read.adapt.fields import (
    TYPES,
    Getter,
    at_path,
    getter,
    number_reader,
    optional,
    optional_text,
    require,
)
from prefdata.read.adapt.ids import Messages, canonical_json, group_digest
from prefdata.read.adapt.message_cells import looks_like_messages, parse_columns
from prefdata.read.adapt.messages import read_completion, read_messages, read_tools
from prefdata.read.adapt.prompt import PromptReader
from prefdata.read.adapt.ranking import Candidate
from prefdata.read.adapt.repeated import read_repeated, refuse_dialogue
from prefdata.read.adapt.sides import (
    Split,
    part_dialogues,
    read_transcript,
    split_after_prompt,
    split_chosen_dialogue,
    split_common_lines,
    split_common_text,
    split_common_turns,
    split_last_turn,
    split_transcripts,
)
from prefdata.read.faults import RowError
from prefdata.read.layouts.model import Layout
from prefdata.read.limits import Limits, Pairing
from prefdata.records.text import FORM_COLUMN

NUMBERS = ("score_chosen", "score_rejected", "margin")
TEXTS = ("model_chosen", "model_rejected")
RANKS = ("chosen_rank", "rejected_rank")
SPOKEN = ("text", "answer", "dialogue")  # kinds of columns that hold turns
MEDIA = frozenset(
    {"image", "images", "img", "image_path", "image_paths", "image_url", "image_urls"}
    | {"chosen_images", "rejected_images", "video", "videos", "audio", "audios"}
)
NO_MEDIA: tuple[Any, ...] = (None, "", [], {}, "[]", "{}", "null", "None", "nan", "NaN")
TEXT_SPLITS = {"common_text": split_common_text, "common_lines": split_common_lines}
MOST_RANK = 2**15 - 1


class Adapter:
    """Reader of the rows of one layout."""

    def __init__(
        self, layout: Layout, pairing: Pairing, limits: Limits, plain: str | None = None
    ) -> None:
        self.layout, self.plain = layout, plain
        self.used, self.known = layout.used | {FORM_COLUMN}, layout.known | {FORM_COLUMN}
        self.limits = limits
        self.columns = [
            (path, getter(path), TYPES[kind], kind) for path, kind in layout.columns.items()
        ]
        self.get_chosen = getter(layout.chosen or "")
        self.get_rejected = getter(layout.rejected or "")
        self.prompt = PromptReader(layout)
        self.reader = CandidateReader(layout, pairing, limits) if layout.candidates else None
        self.number = number_reader(layout.missing)
        self.keeps_ties = pairing.ties == "keep"
        self.numbers = _getters(layout, NUMBERS)
        self.texts, self.ranks = _getters(layout, TEXTS), _getters(layout, RANKS)
        self.has_many = layout.columns.get(layout.rejected or "") == "answers"
        self.spoken = [path for path, kind in layout.columns.items() if kind in SPOKEN]
        self.tools = [layout.tools] if isinstance(layout.tools, str) else layout.tools or []
        self.tool_columns = {path.partition(".")[0] for path in self.tools}

    def check(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its cells parsed; raise RowError if it does not fit the layout."""
        if not MEDIA.isdisjoint(row):
            self._refuse_media(row)
        if self.layout.parse:
            row = parse_columns(row, self.layout.parse, self.limits)
        for path, get, types, kind in self.columns:
            if type(row.get(path)) not in types:  # or the path is dotted, or its kind is `any`
                require(path, get(row), kind)
        for path in self.spoken:
            value = row.get(path)
            if type(value) is str and looks_like_messages(value):
                raise RowError("R224", f"`{path}` holds messages as text that was not parsed")
        if self.layout.ties and not self.keeps_ties and (tie := self._tie(row)):
            said = canonical_json(at_path(tie, row))
            raise RowError("PD303", f"`{tie}` is {said}: neither side is preferred")
        return row

    def _refuse_media(self, row: dict[str, Any]) -> None:
        for name in row.keys() & MEDIA - self.known:
            if row[name] not in NO_MEDIA:
                raise RowError("R223", f"`{name}` is not empty, and token shards hold only text")

    def read_whole(self, row: dict[str, Any]) -> ParsedRow:
        """Return the prompt and pairs of a checked row, or of a row assembled from checked ones."""
        layout = self.layout
        tools = None if self.tool_columns.isdisjoint(row) else self._tools(row)
        num = 0
        if self.reader:
            prompt, found = self._read_candidates(self.reader, row)
            form = self._form(row, prompt)
            num, group_id = len(found), group_digest(form, prompt, tools)
            pairs = self.reader.pairs(row, found, group_id)
        else:
            splits = self._splits(row)
            prompt = splits[0].prompt
            form = self._form(row, prompt)
            group_id = group_digest(form, prompt, tools)
            pairs = [self._pair(row, split.chosen, split.rejected) for split in splits]
            if self.keeps_ties and self._tie(row):
                pairs = [pairs[0]._replace(margin=0.0, chosen_rank=1, rejected_rank=1)]
        weight = None
        if layout.weight:
            weight = self.number(layout.weight, at_path(layout.weight, row))
        weight = 1.0 if weight is None else weight
        meta = self._meta(row, _position(layout, pairs, num))
        return ParsedRow(form, prompt, tools, group_id, pairs, weight, meta, num)

    def _form(self, row: dict[str, Any], prompt: Messages) -> str:
        """Return `chat`, `text`, or the form of plain text while that is undecided (`plain`)."""
        said = row.get(FORM_COLUMN)
        if said in ("chat", "text"):
            return str(said)
        if not self.layout.plain or self.plain is None:
            return self.layout.form
        if len(prompt) == 1 and self.prompt.is_text(row):
            return self.plain
        if self.plain == "text":
            problem = "has a system text or earlier turns, which verbatim text cannot hold"
            raise RowError("PD215", f"{problem}; set text: chat")
        return "chat"

    def _tools(self, row: dict[str, Any]) -> str | None:
        """Return the tool definitions; raise R227 if two paths hold different ones."""
        found = [read_tools(path, optional(at_path(path, row))) for path in self.tools]
        if len(set(found)) > 1:
            raise RowError(
                "R227", f"{' and '.join(self.tools)} differ; a pair has one list of tools"
            )
        return found[0]

    def _read_candidates(
        self, reader: CandidateReader, row: dict[str, Any]
    ) -> tuple[Messages, list[Candidate]]:
        found = reader.read(row)
        completions = [candidate.completion for candidate in found]
        if self.layout.sides == "last_two_turns":
            turns = at_path(str(reader.spec.items), row)[:-2]
            prompt = self.prompt.with_system(row, read_messages("turns", turns, self.layout.roles))
            return prompt, found
        if self.layout.prompt:
            prompt = self.prompt.read(row)
            sides = read_repeated(prompt, completions, self.layout.repeated)
        else:
            last_turn = self.layout.sides == "last_turn"
            prompt, *sides = part_dialogues(completions, last_turn=last_turn)
            prompt = self.prompt.with_system(row, prompt)
        both = zip(found, sides, strict=True)
        return prompt, [candidate._replace(completion=side) for candidate, side in both]

    def _splits(self, row: dict[str, Any]) -> list[Split]:
        """Return the prompt and the two sides of each pair."""
        chosen, rejected = self.get_chosen(row), self.get_rejected(row)
        if not self.has_many:
            return [self._split(row, chosen, rejected)]
        if not rejected:
            raise RowError("PD303", "fewer than two completions, so nothing is preferred")
        return [self._split(row, chosen, one) for one in rejected]

    def _split(self, row: dict[str, Any], chosen: Any, rejected: Any) -> Split:
        split = self._split_sides(row, chosen, rejected)
        if self.layout.sides in ("completion", "after_prompt"):
            sides = (split.chosen, split.rejected)
            found = read_repeated(split.prompt, sides, self.layout.repeated)
            return split if found is sides else Split(split.prompt, *found)
        if self.layout.sides == "chosen_dialogue":
            refuse_dialogue(split.prompt, split.rejected)
        if self.layout.system:
            return split._replace(prompt=self.prompt.with_system(row, split.prompt))
        return split

    def _split_sides(self, row: dict[str, Any], chosen: Any, rejected: Any) -> Split:
        sides, roles = self.layout.sides, self.layout.roles
        if type(chosen) is str and type(rejected) is str:  # all rows of the text layouts
            if sides == "last_turn":
                return split_transcripts(chosen, rejected, roles)
            if sides in TEXT_SPLITS:
                return TEXT_SPLITS[sides](chosen, rejected)
        require(self.layout.chosen or "", chosen, "any")
        require(self.layout.rejected or "", rejected, "any")
        if sides == "completion":
            return Split(
                self.prompt.read(row),
                read_completion("chosen", chosen, roles),
                read_completion("rejected", rejected, roles),
            )
        if sides == "chosen_dialogue":
            return split_chosen_dialogue(
                self._dialogue("chosen", chosen),
                read_completion("rejected", rejected, roles),
                is_text=type(rejected) is str,
            )
        return self._split_dialogues(
            row, self._dialogue("chosen", chosen), self._dialogue("rejected", rejected)
        )

    def _split_dialogues(self, row: dict[str, Any], chosen: Messages, rejected: Messages) -> Split:
        if self.layout.sides == "after_prompt":
            return split_after_prompt(self.prompt.read(row), chosen, rejected)
        if self.layout.sides == "last_turn":
            return split_last_turn(chosen, rejected)
        return split_common_turns(chosen, rejected)

    def _dialogue(self, path: str, value: Any) -> Messages:
        if type(value) is str:
            return read_transcript(path, value, self.layout.roles)
        return read_messages(path, value, self.layout.roles)

    def _pair(self, row: dict[str, Any], chosen: Messages, rejected: Messages) -> Pair:
        pair = Pair(chosen, rejected)
        if not (self.numbers or self.texts or self.ranks):
            return pair
        said: dict[str, Any] = {
            name: self.number(path, get(row)) for name, path, get in self.numbers
        }
        texts = {name: optional_text(path, get(row)) for name, path, get in self.texts}
        said |= {n: None if text in self.layout.missing else text for n, text in texts.items()}
        said |= {name: self._rank(path, get(row)) for name, path, get in self.ranks}
        return pair._replace(**said)

    def _rank(self, path: str, value: Any) -> int | None:
        rank = self.number(path, value)
        if rank is not None and not (rank.is_integer() and 1 <= rank <= MOST_RANK):
            raise RowError("R210", f"`{path}` is {rank:g}, but ranks are whole numbers from 1")
        return None if rank is None else int(rank)

    def _tie(self, row: dict[str, Any]) -> str | None:
        """Return the column that marks the row as a tie, or None."""
        ties = self.layout.ties.items()
        return next((path for path, values in ties if at_path(path, row) in values), None)

    def _meta(self, row: dict[str, Any], position: dict[str, bool]) -> str:
        """Return the row's other columns, and the position of the chosen side."""
        if self.layout.meta:
            text = optional_text(self.layout.meta, at_path(self.layout.meta, row))
            meta = from_json(self.layout.meta, text or "{}")
            if type(meta) is not dict:
                raise RowError("R210", f"`{self.layout.meta}` is not an object")
            return canonical_json(meta)
        if not position and self.used.issuperset(row):
            return "{}"
        rest = {name: value for name, value in row.items() if name not in self.used}
        return canonical_json(position | rest)


def _position(layout: Layout, pairs: list[Pair], num: int) -> dict[str, bool]:
    """Return whether raters saw the chosen side first; empty if the order says nothing.

    It is known where a label or a strength names one of two answers that were shown together.
    """
    spec = layout.candidates
    if spec is None or num != 2 or layout.gather or not (spec.label or spec.strength):
        return {}
    (pair,) = pairs
    if pair.places is None or pair.tie or pair.margin == 0:
        return {}
    return {"chosen_first": pair.places[0] < pair.places[1]}


def _getters(layout: Layout, names: tuple[str, ...]) -> list[tuple[str, str, Getter]]:
    paths = [(name, getattr(layout, name)) for name in names]
    return [(name, path, getter(path)) for name, path in paths if path]
