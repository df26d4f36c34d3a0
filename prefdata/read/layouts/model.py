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

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

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
Location = int | Literal["tie"]
"""Index of a candidate, from 0, or `tie` if none is preferred."""
Paths = str | list[str]
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


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Rank(Strict):
    """Path of a candidate's rank, and which end is the best: declared, never guessed."""

    path: str
    best: Literal["low", "high"]


class Label(Strict):
    """A column that names the winner among `candidates`, or one column for each possible winner."""

    column: str | None = None
    map: dict[str, Location] = {}
    """From the column's value, as JSON text, to the winner's index or `tie`."""
    one_hot: dict[str, Location] = {}
    """Columns of which exactly one is 1 or true, each with the index of its candidate or `tie`."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Label":
        if bool(self.one_hot) == bool(self.column and self.map):
            raise ValueError("a label has either `column` and `map`, or `one_hot`")
        return self


class Strength(Strict):
    """A signed number: the sign says which of two is better, the size by how much; 0 is a tie."""

    column: str
    first: Literal["negative", "positive"]
    """Sign that prefers the first candidate. The size becomes the margin."""
    largest: float | None = None
    """Largest size accepted: some sets write -100 for an answer that was not given."""


class ParallelLists(Strict):
    """Scores and models outside the candidates: a list parallel to them, or a path for each."""

    score: Paths | None = None
    model: Paths | None = None


class ScoreCheck(Strict):
    """Check for misread scores: a score of `value` contradicts a mean of others this low."""

    value: float
    mean_of: list[str]
    at_most: float


class Candidates(Strict):
    """Completions of one prompt, in a list column or in several columns."""

    items: Paths
    """Path of a list, or paths of columns that hold one candidate each."""
    text: str = ""
    """Path of the completion in a candidate; empty if the candidate is the completion."""
    model: str | None = None
    score: Paths | None = None
    """Path of the score, higher is better; of several paths, the mean of the numbers found."""
    doubt: ScoreCheck | None = None
    """Check that refuses a row if its score contradicts others (PD306)."""
    rank: Rank | None = None
    """Takes precedence over the score if both are given."""
    label: Label | None = None
    strength: Strength | None = None
    good: str | None = None
    """Path of true or false in each candidate; every true one is preferred to every false one."""
    in_order: bool = False
    """The best comes first. Columns that hold lists are then tiers: each completion of one is
    preferred to each of the next."""
    parallel: ParallelLists = ParallelLists()

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, value: Any) -> Any:
        return accept_old_keys(value, {"beside": "parallel"})

    @property
    def has_order(self) -> bool:
        """True if exactly one rule, or scores or ranks, order the candidates."""
        orders = [self.label, self.strength, self.good, self.in_order]
        return sum(map(bool, orders)) == 1 or bool(self.score or self.rank or self.parallel.score)


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
]


class Layout(Strict):
    """One public layout of preference data."""

    name: str
    about: str
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
    `chosen_dialogue`: a dialogue that ends in the chosen completion, and the rejected one."""
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
    ties: dict[str, list[str]] = {}
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
    fixture: Fixture
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
        if self.interleave and not (self.candidates and self.sides == "common_turns"):
            raise ValueError("`interleave` needs `candidates` and `sides: common_turns`")
        if (self.prompt is None) == (self.sides in ("completion", "after_prompt")):
            raise ValueError("`sides` completion and after_prompt need a `prompt`; others none")

    @property
    def used(self) -> frozenset[str]:
        """Columns that the layout reads; all others of a row go to `meta`."""
        paths = [path for field in PATH_FIELDS for path in _listed(getattr(self, field))]
        if self.tree:
            paths.append(self.tree.root or self.tree.replies)
        return _heads([*paths, *_candidate_paths(self.candidates)])

    @property
    def read(self) -> frozenset[str]:
        """Columns that affect a row's pairs; all others are reported as not read."""
        paths = [*self.columns, *self.ties]
        if self.gather:
            paths += [*self.gather.by, self.gather.id or "", self.gather.parent or ""]
        if self.tree:
            paths += [self.tree.role, self.tree.text]
        if self.candidates and (self.gather or self.tree):
            paths += _inner_paths(self.candidates)
        return self.used | {FORM_COLUMN} | _heads(paths)

    @property
    def read_inside(self) -> dict[str, frozenset[str]]:
        """Keys that are read, for columns that hold an object of which only some keys are read."""
        if self.tree:
            return {}
        read = (self.prompt, self.tools, self.chosen, self.rejected, self.system)
        paths = [*self.columns, *_candidate_paths(self.candidates)]
        paths += [path for given in read for path in _listed(given)]
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


def _listed(paths: Paths | None) -> list[str]:
    return paths if isinstance(paths, list) else [paths] if paths else []


def _heads(paths: Iterable[str]) -> frozenset[str]:
    """Return the columns that paths begin in."""
    return frozenset(path.split(".")[0] for path in paths if path)


def _inner_paths(spec: Candidates) -> list[str]:
    """Return paths in a candidate; they are columns if each candidate is a row."""
    paths = [spec.text, spec.model or "", spec.good or "", *_listed(spec.score)]
    paths += [spec.rank.path] if spec.rank else []
    return paths + (spec.doubt.mean_of if spec.doubt else [])


def _candidate_paths(spec: Candidates | None) -> list[str]:
    """Return paths in a row, not in a candidate."""
    if spec is None:
        return []
    label, strength = spec.label, spec.strength
    given = [spec.items, spec.parallel.score, spec.parallel.model]
    given += [strength.column] if strength else []
    given += [label.column, list(label.one_hot)] if label else []
    return [path for paths in given for path in _listed(paths)]
