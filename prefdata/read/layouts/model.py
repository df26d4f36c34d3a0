"""What a raw layout is: a declarative file that says where a row holds its prompt and its answers.

    name: my-set
    about: what it is and where it was seen
    columns: {question: text, good: text, bad: text}     what a row must have to be this layout
    prompt: question
    chosen: good
    rejected: bad
    fixture: {rows: [{...}], pairs: [{prompt: ..., chosen: ..., rejected: ...}]}

A path such as `info.post` goes into objects. A user's own layout is a file of the same form.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from prefdata.records.text import FORM_COLUMN
from prefdata.settings import accept_old_keys

Kind = Literal[
    "any",
    "filled",
    "text",
    "hh",
    "messages",
    "turns",
    "turn",
    "answer",
    "answers",
    "dialogue",
    "question",
    "list",
    "number",
    "bool",
    "flag",
]
"""What a column holds: anything; anything but what is empty; text; an HH transcript; a list of
{role, content} or of {from, value}; a list of {from, value} alone; one {from, value} or {role,
content}; a turn, text or messages; a list of several answers, each text or messages; text or
messages; text or a turn; any list; a number; true or false; the same, or 0 and 1, or a word for
it."""
Location = int | Literal["tie"]
"""A candidate's place from 0, or that none is preferred."""
Paths = str | list[str]
MESSAGE_KEYS = frozenset(
    {"role", "content", "from", "value", "name", "tool_calls", "tool_call_id"}
    | {"reasoning", "reasoning_content", "thinking"}
)


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Rank(Strict):
    """Where a candidate's rank lies, and which end of it is the best: declared, never guessed."""

    path: str
    best: Literal["low", "high"]


class Label(Strict):
    """A column that names the winner among `candidates`, or one column for each who may win."""

    column: str | None = None
    map: dict[str, Location] = {}
    """The column's value, as JSON writes it, to the winner's place, or to `tie`."""
    one_hot: dict[str, Location] = {}
    """Columns of which exactly one is 1 or true, each with the place that it stands for."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Label":
        if bool(self.one_hot) == bool(self.column and self.map):
            raise ValueError("a label has either `column` and `map` or `one_hot`")
        return self


class Strength(Strict):
    """A signed number: its sign says which of two is better, its size by how much; 0 is a tie."""

    column: str
    first: Literal["negative", "positive"]
    """The sign that prefers the first candidate. The size becomes the margin."""
    largest: float | None = None
    """Sizes beyond it are refused: sets write -100 for an answer that was not given."""


class ParallelLists(Strict):
    """What is said of candidates beside them: a list in step with theirs, or a path for each."""

    score: Paths | None = None
    model: Paths | None = None


class ScoreCheck(Strict):
    """A score that may be misread: it cannot be `value` where the mean of others is this low."""

    value: float
    mean_of: list[str]
    at_most: float


class Candidates(Strict):
    """Completions of one prompt, in a list column or in several columns."""

    items: Paths
    """A path to a list, or the paths of the columns that hold one candidate each."""
    text: str = ""
    """Where in a candidate its completion lies; empty: the candidate is the completion."""
    model: str | None = None
    score: Paths | None = None
    """Higher is better; of several paths the mean of those that hold a number."""
    doubt: ScoreCheck | None = None
    """When a row is refused because a score of it contradicts others (PD306)."""
    rank: Rank | None = None
    """Used before the score where both are given."""
    label: Label | None = None
    strength: Strength | None = None
    good: str | None = None
    """Path to true or false in each candidate: every true one is preferred to every false one."""
    in_order: bool = False
    """The best comes first. Columns that hold lists are then tiers: each completion of one is
    preferred to each of the next."""
    beside: ParallelLists = ParallelLists()

    @property
    def has_order(self) -> bool:
        """Whether something says which candidate is better."""
        told = [self.label, self.strength, self.good, self.in_order]
        return sum(map(bool, told)) == 1 or bool(self.score or self.rank or self.beside.score)


class Tree(Strict):
    """Messages with replies inside: every message with two replies or more is a prompt.

    Each becomes a row with `path`, the messages down to it, and `replies`.
    """

    root: str = ""
    """Path of the first message; empty: the row itself."""
    replies: str = "replies"
    role: str = "role"
    text: str = "text"
    answers: str
    """The role of the replies that are ranked, as the layout names it."""


class Gather(Strict):
    """Rows that give pairs only together. All rows of such a file are held in memory.

    By equal values they become one row with the first one's columns and all of them in `rows`; by
    their parents they become trees.
    """

    by: list[str] = []
    """Paths whose values are equal in rows that belong together, the first of them always there;
    of a dialogue whose last turn is the completion, all turns before it."""
    id: str | None = None
    parent: str | None = None
    """Paths of a message's id and of the one that it replies to; the layout then has a `tree`."""

    @model_validator(mode="after")
    def _has_a_key(self) -> "Gather":
        if bool(self.by) == bool(self.id and self.parent):
            raise ValueError("gather needs either `by` or both `id` and `parent`")
        return self


class Fixture(Strict):
    """Rows of the layout and the pairs that they must give."""

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
    """Where the layout was seen, and what of it was not checked."""
    columns: dict[str, Kind]
    """Columns that a row must have, with what they hold: the layout's signature."""
    absent: list[str] = []
    """Columns that a row of this layout never has: they would mean something else."""
    optional: list[str] = []
    """Columns that may be there and are kept in `meta`; any other counts as an extra key."""
    detect: bool = True
    """False: only where it is named."""
    detect_why: str = ""
    """Why it has to be named."""
    refuse: str = ""
    """Why a file of this layout cannot be read; it is known so that the error says it."""
    form: Literal["chat", "text"] = "chat"
    """`chat`: rendered by the chat template. `text`: verbatim."""
    plain: bool = False
    """Whether the config's `text` decides between the two, where prompt and completions are plain
    text; dialogues are chats."""
    sides: Sides = "completion"
    """What `chosen` and `rejected`, or the candidates, hold: the completion alone; a dialogue whose
    last turn it is; dialogues that share their first turns; texts that share their first words;
    texts that share a beginning up to the end of a line, a turn or a marker; dialogues that begin
    with the prompt column; a dialogue that ends in the chosen completion, and the rejected one
    alone."""
    prompt: Paths | None = None
    """Path of the prompt; of several, those that are not empty are joined."""
    join: str = "\n\n"
    """What joins the parts of a prompt."""
    interleave: str | None = None
    """Path of the user's turns, a list of texts; each candidate is then the list of answers."""
    system: str | None = None
    history: str | None = None
    """Path of earlier turns, a list of [user, assistant]."""
    chosen: str | None = None
    rejected: str | None = None
    candidates: Candidates | None = None
    dimensions: dict[str, dict[str, Any]] = {}
    """What may be preferred, by name, each with the fields of `candidates` that it sets."""
    dimension: str | None = None
    """The one of `dimensions` that is in force; none: the user has to name it."""
    tree: Tree | None = None
    gather: Gather | None = None
    parse: list[str] = []
    """Columns that may hold their value as text: JSON, or a Python literal."""
    repeated: Literal["keep", "refuse", "cut"] = "refuse"
    """Where both completions begin with the prompt: `refuse` the row (R220) where the prompt is too
    long for chance, `cut` it off and refuse rows that lack it (R221), or `keep` it as it stands."""
    missing: list[str] = []
    """Texts that stand for no number and no model, such as N/A."""
    ties: dict[str, list[str]] = {}
    """Columns with the values that say of a row that neither side is preferred."""
    roles: dict[str, str] = {}
    """The layout's names of roles to ours: system, developer, user, assistant, tool; and to
    tool_calls, where a turn's text is a call."""
    tools: Paths | None = None
    """Path of the tool definitions; of several, those that are there have to agree."""
    score_chosen: str | None = None
    score_rejected: str | None = None
    margin: str | None = None
    weight: str | None = None
    model_chosen: str | None = None
    model_rejected: str | None = None
    chosen_rank: str | None = None
    rejected_rank: str | None = None
    meta: str | None = None
    """Path of a JSON object as text that is the record's `meta` by itself."""
    fixture: Fixture

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
            raise ValueError(f"`dimension` names none of {', '.join(self.dimensions)}")
        for name in self.dimensions or [None]:
            candidates = self.candidates_by(name)
            if candidates and not candidates.has_order:
                raise ValueError("candidates need a score, a rank or a label to be ordered by")
        return self

    def candidates_by(self, dimension: str | None) -> Candidates | None:
        """The candidates as a dimension orders them."""
        if dimension is None or self.candidates is None:
            return self.candidates
        said = self.candidates.model_dump() | self.dimensions[dimension]
        return Candidates.model_validate(said)

    def by(self, dimension: str) -> "Layout":
        """The layout with a dimension in force."""
        name, candidates = f"{self.name}:{dimension}", self.candidates_by(dimension)
        return self.model_copy(
            update={"name": name, "dimension": dimension, "candidates": candidates}
        )

    def _prompt_holds_together(self) -> None:
        if self.prompt is None and self.history:
            raise ValueError("`history` goes with a `prompt`")
        if self.system and self.sides in ("common_text", "common_lines"):
            raise ValueError(f"`system` does not go with `sides: {self.sides}`")
        of_dialogues = ("common_text", "common_lines", "after_prompt", "chosen_dialogue")
        if self.candidates and self.sides in of_dialogues:
            raise ValueError(f"`sides: {self.sides}` belongs to layouts with `chosen`")
        if self.interleave and not (self.candidates and self.sides == "common_turns"):
            raise ValueError("`interleave` goes with candidates and `sides: common_turns`")
        if (self.prompt is None) == (self.sides in ("completion", "after_prompt")):
            raise ValueError(f"`prompt` does not go with `sides: {self.sides}`")

    @property
    def used(self) -> frozenset[str]:
        """The columns that the layout reads; every other one of a row goes to `meta`."""
        one = [self.system, self.history, self.chosen, self.rejected, self.weight]
        one += [self.score_chosen, self.score_rejected, self.margin, self.interleave]
        one += [self.model_chosen, self.model_rejected]
        one += [self.chosen_rank, self.rejected_rank, self.meta]
        some = [self.prompt, self.tools, *_candidate_paths(self.candidates)]
        if self.tree:
            one += [self.tree.root or self.tree.replies]
        paths = [*one, *(path for paths in some for path in _listed(paths))]
        return frozenset(path.split(".")[0] for path in paths if path)

    @property
    def read(self) -> frozenset[str]:
        """The columns that decide what a row gives; every other one is reported as not read."""
        paths = [*self.columns, *self.ties, *(self.gather.by if self.gather else [])]
        if self.gather:
            paths += [self.gather.id or "", self.gather.parent or ""]
        if self.tree:
            paths += [self.tree.role, self.tree.text]
        if self.candidates and (self.gather or self.tree):
            paths += _inner_paths(self.candidates)
        return self.used | {FORM_COLUMN, *(path.split(".")[0] for path in paths)}

    @property
    def read_inside(self) -> dict[str, frozenset[str]]:
        """Of columns that hold an object of which not all is read, the keys that are."""
        if self.tree:
            return {}
        listed = [self.prompt, self.tools, *_candidate_paths(self.candidates)]
        paths = [path for some in listed for path in _listed(some)]
        paths += [*self.columns, self.chosen or "", self.rejected or "", self.system or ""]
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
        """The columns that a row of this layout may have; any other is counted as extra."""
        signature = frozenset(path.split(".")[0] for path in (*self.columns, *self.ties))
        return self.used | signature | frozenset(self.optional)


def _listed(paths: Paths | None) -> list[str]:
    return paths if isinstance(paths, list) else [paths] if paths else []


def _inner_paths(spec: Candidates) -> list[str]:
    """Paths in a candidate, which are columns where each candidate is a row."""
    paths = [spec.text, spec.model or "", spec.good or "", *_listed(spec.score)]
    paths += [spec.rank.path] if spec.rank else []
    return paths + (spec.doubt.mean_of if spec.doubt else [])


def _candidate_paths(spec: Candidates | None) -> list[Paths | None]:
    """Paths in a row, not in a candidate."""
    if spec is None:
        return []
    paths = [spec.items, spec.beside.score, spec.beside.model]
    paths += [spec.strength.column] if spec.strength else []
    if spec.label:
        paths += [spec.label.column, list(spec.label.one_hot)]
    return paths
