"""Raw layouts: declarative files that say where a row holds its prompt and its answers.

    name: my-set
    about: what the set is
    columns: {question: text, good: text, bad: text}     columns that a row must have
    prompt: question
    chosen: good
    rejected: bad
    fixture: {rows: [{...}], pairs: [{prompt: ..., chosen: ..., rejected: ...}]}

A path such as `info.post` reads inside objects. A user's layout is a file of the same form; so are
those of packages, which name them with the entry point `prefdata.layouts`.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import PrivateAttr, model_validator

from prefdata.read.layouts.candidates import (
    Candidates,
    Paths,
    Strict,
    candidate_paths,
    inner_paths,
    listed_paths,
)
from prefdata.records.text import FORM_COLUMN
from prefdata.settings import accept_old_keys

Kind = Literal[
    "any", "filled", "text", "hh", "messages", "turns", "turn", "answer", "answers", "dialogue",
    "question", "list", "number", "bool", "flag",
]  # fmt: skip
"""Contents of a column. `any`: anything; `filled`: anything not empty; `hh`: an HH transcript;
`messages`: a list of {role, content} or {from, value}; `turns`: a list of {from, value} only;
`turn`: one {from, value} or {role, content}; `answer`: a turn, text or messages; `answers`: a list
of answers, each text or messages; `dialogue`: text or messages; `question`: text or a turn; `flag`:
true or false, 0 and 1, or a word for either."""


MESSAGE_KEYS = frozenset(
    {"role", "content", "from", "value", "name", "tool_calls", "tool_call_id"}
    | {"reasoning", "reasoning_content", "thinking"}
)
PATH_FIELDS = (
    *("prompt", "system", "history", "interleave", "chosen", "rejected", "tools", "weight", "meta"),
    *("score_chosen", "score_rejected", "margin", "model_chosen", "model_rejected"),
    *("chosen_rank", "rejected_rank"),
)
"""Fields of a layout that hold paths of a row."""


class Tree(Strict):
    """Messages with nested replies: every message with two or more replies is a prompt.

    Each becomes a row with `path`, the messages from the root to it, and `replies`.
    """

    root: str = ""
    """Path of the first message; empty if it is the row itself."""
    replies: str = "replies"
    role: str = "role"
    text: str = "text"
    answers: str
    """Role of the replies that are ranked, as the data name it."""


class Gather(Strict):
    """Grouping of rows that give pairs only together. All rows of the file are held in memory.

    Rows with equal values become one row: the columns equal in all, and the rows in `rows`. Rows
    with parents become trees.
    """

    by: list[str] = []
    """Paths whose values are equal in rows of one group; the first must be present. If the last
    turn of a dialogue is the completion, only the turns before it are compared."""
    id: str | None = None
    parent: str | None = None
    """Paths of a message's id and of its parent's id; the layout then has a `tree`."""

    @model_validator(mode="after")
    def _has_a_key(self) -> "Gather":
        if bool(self.by) == bool(self.id and self.parent):
            raise ValueError("gather needs either `by` or both `id` and `parent`")
        return self


class Fixture(Strict):
    """Example rows of the layout and the pairs that they must give."""

    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]


Sides = Literal[
    "completion",
    "last_turn",
    "common_turns",
    "common_text",
    "common_lines",
    "after_prompt",
    "chosen_dialogue",
    "last_two_turns",
]


class Layout(Strict):
    """One public layout of preference data."""

    name: str = ""
    """Its name in reports; absent: that of its file."""
    about: str = ""
    seen: str = ""
    """Source of the layout, and what was not checked."""
    columns: dict[str, Kind]
    """Columns that a row must have, with their kinds: the layout's signature."""
    absent: list[str] = []
    """Columns that a row of this layout never has: with them it is another layout."""
    optional: list[str] = []
    """Columns that may be present and are kept in `meta`; any other counts as an extra key."""
    detect: bool = True
    """False: the layout is used only if it is named."""
    detect_why: str = ""
    """Reason that the layout has to be named."""
    refuse: str = ""
    """Reason that a file of this layout cannot be read; the error message contains it."""
    form: Literal["chat", "text"] = "chat"
    """`chat`: rendered by the chat template. `text`: verbatim."""
    plain: bool = False
    """True: for plain text the config's `text` chooses between `chat` and `text`; dialogues are
    chats."""
    sides: Sides = "completion"
    """Contents of `chosen` and `rejected`, or of the candidates. `completion`: only the completion;
    `last_turn`: a dialogue that ends in it; `common_turns`: dialogues that share their first turns;
    `common_text`: texts that share their first words; `common_lines`: texts that share a beginning
    up to a line, a turn or a marker; `after_prompt`: dialogues that begin with the prompt column;
    `chosen_dialogue`: a dialogue that ends in the chosen completion, and the rejected one;
    `last_two_turns`: one dialogue, as `candidates.items`, that ends in the two candidates."""
    prompt: Paths | None = None
    """Path of the prompt; of several, those that are not empty are joined."""
    join: str = "\n\n"
    """Separator between the parts of a prompt."""
    interleave: str | None = None
    """Path of the user's turns, a list of texts; each candidate is then the list of answers."""
    system: str | None = None
    history: str | None = None
    """Path of earlier turns, a list of [user, assistant]."""
    chosen: str | None = None
    rejected: str | None = None
    candidates: Candidates | None = None
    dimensions: dict[str, dict[str, Any]] = {}
    """Preference criteria by name, each with the fields of `candidates` that it sets."""
    dimension: str | None = None
    """Selected one of `dimensions`; null if the user has to name it."""
    tree: Tree | None = None
    gather: Gather | None = None
    parse: list[str] = []
    """Columns whose value may be text to parse: JSON or a Python literal."""
    repeated: Literal["keep", "refuse", "cut"] = "refuse"
    """If both completions begin with the prompt: `refuse` the row (R220) if the prompt is too long
    for chance, `cut` it off and refuse rows that lack it (R221), or `keep` it unchanged."""
    missing: list[str] = []
    """Texts that mean a missing number or model, such as N/A."""
    ties: dict[str, list[str | bool | float | None]] = {}
    """Columns with the values that mark a row as a tie."""
    roles: dict[str, str] = {}
    """From the data's role names to ours: system, developer, user, assistant, tool; and
    tool_calls, if a turn's text is a call."""
    tools: Paths | None = None
    """Path of the tool definitions; of several, those present must be equal."""
    score_chosen: str | None = None
    score_rejected: str | None = None
    margin: str | None = None
    weight: str | None = None
    model_chosen: str | None = None
    model_rejected: str | None = None
    chosen_rank: str | None = None
    rejected_rank: str | None = None
    meta: str | None = None
    """Path of a JSON object as text that becomes the record's whole `meta`."""
    fixture: Fixture = Fixture(rows=[], pairs=[])
    """Example rows with their pairs, checked when a layout of your own is loaded."""
    _package: str = PrivateAttr("")

    @property
    def package(self) -> str:
        """The installed package that gave the layout, with its version; empty for others."""
        return self._package

    def of_package(self, name: str) -> "Layout":
        """Return the layout as one of an installed package."""
        layout = self.model_copy()
        layout._package = name
        return layout

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, value: Any) -> Any:
        return accept_old_keys(value, {"weave": "interleave"})

    @model_validator(mode="after")
    def _holds_together(self) -> "Layout":
        of_sides = [self.chosen, self.rejected, self.score_chosen, self.score_rejected]
        of_sides += [self.margin, self.model_chosen, self.model_rejected]
        if not self.refuse:
            if any(of_sides) if self.candidates else not (self.chosen and self.rejected):
                raise ValueError("give either `candidates` or both `chosen` and `rejected`")
            self._prompt_holds_together()
        if not self.detect and not self.detect_why:
            raise ValueError("`detect: false` needs its reason in `detect_why`")
        if self.dimension is not None and self.dimension not in self.dimensions:
            raise ValueError(f"`dimension` is not one of {', '.join(self.dimensions)}")
        for name in self.dimensions or [None]:
            candidates = self.candidates_by(name)
            if candidates and not candidates.has_order:
                raise ValueError("candidates need a score, a rank or a label to be ordered by")
        return self

    def candidates_by(self, dimension: str | None) -> Candidates | None:
        """Return the candidates with the fields that a dimension sets."""
        if dimension is None or self.candidates is None:
            return self.candidates
        said = self.candidates.model_dump() | self.dimensions[dimension]
        return Candidates.model_validate(said)

    def by(self, dimension: str) -> "Layout":
        """Return the layout with a dimension selected."""
        name, candidates = f"{self.name}:{dimension}", self.candidates_by(dimension)
        return self.model_copy(
            update={"name": name, "dimension": dimension, "candidates": candidates}
        )

    def _prompt_holds_together(self) -> None:
        if self.prompt is None and self.history:
            raise ValueError("`history` needs a `prompt`")
        if self.system and self.sides in ("common_text", "common_lines"):
            raise ValueError(f"`system` cannot be used with `sides: {self.sides}`")
        of_dialogues = ("common_text", "common_lines", "after_prompt", "chosen_dialogue")
        if self.candidates and self.sides in of_dialogues:
            raise ValueError(f"`sides: {self.sides}` needs `chosen`, not `candidates`")
        if self.sides == "last_two_turns" and not (
            self.candidates and isinstance(self.candidates.items, str)
        ):
            raise ValueError("`sides: last_two_turns` needs `candidates` with one path as `items`")
        if self.interleave and not (self.candidates and self.sides == "common_turns"):
            raise ValueError("`interleave` needs `candidates` and `sides: common_turns`")
        if (self.prompt is None) == (self.sides in ("completion", "after_prompt")):
            raise ValueError("`sides` completion and after_prompt need a `prompt`; others none")

    @property
    def used(self) -> frozenset[str]:
        """Columns that the layout reads; all others of a row go to `meta`."""
        paths = [path for field in PATH_FIELDS for path in listed_paths(getattr(self, field))]
        if self.tree:
            paths.append(self.tree.root or self.tree.replies)
        return _heads([*paths, *candidate_paths(self.candidates)])

    @property
    def read(self) -> frozenset[str]:
        """Columns that affect a row's pairs; all others are reported as not read."""
        paths = [*self.columns, *self.ties]
        if self.gather:
            paths += [*self.gather.by, self.gather.id or "", self.gather.parent or ""]
        if self.tree:
            paths += [self.tree.role, self.tree.text]
        if self.candidates and (self.gather or self.tree):
            paths += inner_paths(self.candidates)
        return self.used | {FORM_COLUMN} | _heads(paths)

    @property
    def read_inside(self) -> dict[str, frozenset[str]]:
        """Keys that are read, for columns that hold an object of which only some keys are read."""
        if self.tree:
            return {}
        read = (self.prompt, self.tools, self.chosen, self.rejected, self.system)
        paths = [*self.columns, *candidate_paths(self.candidates)]
        paths += [path for given in read for path in listed_paths(given)]
        whole = {path for path in paths if "." not in path}
        inside = {
            path: set(MESSAGE_KEYS)
            for path, kind in self.columns.items()
            if kind in ("turn", "answer", "question")
        }
        for path in paths:
            head, *rest = path.split(".")
            if rest and head not in whole:
                inside.setdefault(head, set()).add(rest[0])
        return {head: frozenset(keys) for head, keys in inside.items()}

    @property
    def known(self) -> frozenset[str]:
        """Columns that a row of this layout may have; any other is counted as extra."""
        return self.used | _heads([*self.columns, *self.ties]) | frozenset(self.optional)


def _heads(paths: Iterable[str]) -> frozenset[str]:
    """Return the columns that paths begin in."""
    return frozenset(path.split(".")[0] for path in paths if path)
