"""What a raw layout is: a declarative file that says where a row holds its prompt and its answers.

    name: my-set
    about: what it is and where it was seen
    columns: {question: text, good: text, bad: text}     what a row must have to be this layout
    prompt: question
    chosen: good
    rejected: bad
    fixture: {row: {...}, pairs: [{prompt: ..., chosen: ..., rejected: ...}]}

A user's own layout is a file of the same form; the shipped ones lie in `layouts/`.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from prefdata.errors import UsageError

Kind = Literal[
    "any", "text", "hh", "messages", "turns", "turn", "dialogue", "list", "number", "bool"
]
"""What a column holds: text; an HH transcript; a list of {role, content}; a list of {from, value};
one {from, value} or {role, content}; text or messages; any list; a number; true or false."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Rank(Strict):
    """Where a candidate's rank lies, and which end of it is the best: declared, never guessed."""

    path: str
    best: Literal["low", "high"]


class Label(Strict):
    """A column that names the winner among `candidates`."""

    column: str
    map: dict[str, int | Literal["tie"]]
    """The column's value, as JSON writes it, to the winner's place from 0, or to `tie`."""


class Candidates(Strict):
    """Completions of one prompt, in a list column or in several columns."""

    items: str | list[str]
    """A path to a list, or the paths of the columns that hold one candidate each."""
    text: str = ""
    """Where in a candidate its completion lies; empty: the candidate is the completion."""
    model: str | None = None
    score: str | None = None
    """Higher is better."""
    rank: Rank | None = None
    """Used before the score where both are given."""
    label: Label | None = None

    @model_validator(mode="after")
    def _has_an_order(self) -> "Candidates":
        if not (self.score or self.rank or self.label):
            raise ValueError("candidates need a score, a rank or a label to be ordered by")
        return self


class Fixture(Strict):
    """A row of the layout and the pairs that it must give."""

    row: dict[str, Any]
    pairs: list[dict[str, Any]]


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
    """False: only where it is named, since its columns are those of another layout."""
    form: Literal["chat", "text"] = "chat"
    """`chat`: rendered by the chat template. `text`: verbatim."""
    sides: Literal["completion", "last_turn", "common_turns", "common_text", "after_prompt"] = (
        "completion"
    )
    """What `chosen` and `rejected` hold: the completion alone; a dialogue whose last turn it is;
    dialogues that share their first turns; texts that share their beginning; dialogues that
    begin with the prompt column."""
    prompt: str | list[str] | None = None
    """Path of the prompt; of several, those that are not empty are joined."""
    join: str = "\n\n"
    """What joins the parts of a prompt."""
    system: str | None = None
    history: str | None = None
    """Path of earlier turns, a list of [user, assistant]."""
    chosen: str | None = None
    rejected: str | None = None
    candidates: Candidates | None = None
    roles: dict[str, str] = {}
    """The layout's names of roles to ours: system, developer, user, assistant, tool."""
    tools: str | None = None
    score_chosen: str | None = None
    score_rejected: str | None = None
    margin: str | None = None
    weight: str | None = None
    model_chosen: str | None = None
    model_rejected: str | None = None
    fixture: Fixture

    @model_validator(mode="after")
    def _holds_together(self) -> "Layout":
        of_sides = [self.chosen, self.rejected, self.score_chosen, self.score_rejected]
        of_sides += [self.margin, self.model_chosen, self.model_rejected]
        if any(of_sides) if self.candidates else not (self.chosen and self.rejected):
            raise ValueError("give either `candidates` or both `chosen` and `rejected`")
        if self.prompt is None and (self.system or self.history):
            raise ValueError("`system` and `history` go with a `prompt`")
        if self.candidates and self.sides != "completion":
            raise ValueError("`sides` belongs to layouts with `chosen` and `rejected`")
        if (self.prompt is None) != (self.sides in ("last_turn", "common_turns", "common_text")):
            raise ValueError(f"`prompt` does not go with `sides: {self.sides}`")
        return self

    @property
    def used(self) -> frozenset[str]:
        """The columns that the layout reads; every other one of a row goes to `meta`."""
        paths = [self.system, self.history, self.chosen, self.rejected, self.tools, self.weight]
        paths += [self.score_chosen, self.score_rejected, self.margin]
        paths += [self.model_chosen, self.model_rejected]
        paths += self.prompt if isinstance(self.prompt, list) else [self.prompt]
        if self.candidates:
            items = self.candidates.items
            paths += items if isinstance(items, list) else [items]
            paths += [self.candidates.label.column] if self.candidates.label else []
        return frozenset(path.split(".")[0] for path in paths if path)

    @property
    def known(self) -> frozenset[str]:
        """The columns that a row of this layout may have; any other is counted as extra."""
        return (
            self.used
            | frozenset(path.split(".")[0] for path in self.columns)
            | frozenset(self.optional)
        )


@cache
def shipped_layouts() -> dict[str, Layout]:
    """Every layout that comes with the package, by name, sorted."""
    folder = resources.files("prefdata.read") / "layouts"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    layouts = [_layout_of(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {layout.name: layout for layout in layouts}


def load_layout(name_or_path: str) -> Layout:
    """A shipped layout by its name, or a user's own by the path of its YAML file."""
    shipped = shipped_layouts()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(shipped)
        raise UsageError("C150", name_or_path, "no such layout", f"name one of {names}, or a file")
    return _layout_of(path.read_text(encoding="utf-8"), name_or_path)


def _layout_of(text: str, place: str) -> Layout:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UsageError("C151", place, f"not YAML: {problem}", "mend the file") from error
    try:
        return Layout.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "layout"
        problem = f"{where}: {first['msg']}"
        raise UsageError("C152", place, problem, "see docs/layouts.md for the form") from error
