"""Candidates of a row, and what orders them: the part of a layout that says which is better."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from prefdata.settings import accept_old_keys

Location = int | Literal["tie"]
"""Index of a candidate, from 0, or `tie` if none is preferred."""
Paths = str | list[str]


def _as_words(value: Any) -> Any:
    """Return a map with keys as JSON text, as YAML's numbers, booleans and nulls are written."""
    if not isinstance(value, dict):
        return value
    words = {True: "true", False: "false", None: "null"}
    return {
        words[key] if key is None or isinstance(key, bool) else _number(key): to
        for key, to in value.items()
    }


def _number(key: Any) -> str:
    return str(int(key)) if isinstance(key, float) and key.is_integer() else str(key)


LabelMap = Annotated[dict[str, Location], BeforeValidator(_as_words)]
"""From a column's value, as JSON text, to the winner's index or `tie`."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Rank(Strict):
    """Path of a candidate's rank, and which end is the best: declared, never guessed."""

    path: str
    best: Literal["low", "high"]


class Label(Strict):
    """A column that names the winner among `candidates`, or one column for each possible winner."""

    column: str | None = None
    map: LabelMap = {}
    """From the column's value to the winner's index or `tie`; numbers, booleans and null too."""
    one_hot: dict[str, Location] = {}
    """Columns of which exactly one is 1 or true, each with the index of its candidate or `tie`."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Label":
        if bool(self.one_hot) == bool(self.column and self.map):
            raise ValueError("a label has either `column` and `map`, or `one_hot`")
        return self


class Votes(Strict):
    """Votes of several annotators, of which the majority decides.

    The share of the votes that the winner has becomes the margin; without a majority it is a tie.
    """

    columns: Paths
    """A column for each annotator, or the path of a list of votes; nulls are left out."""
    value: str = ""
    """Path of the vote in an item of the list; empty if the item is the vote."""
    map: LabelMap
    """From a vote to the index of the candidate that it prefers, or `tie`."""


class Acceptable(Strict):
    """A list of the places of acceptable candidates; each is preferred to each of the others."""

    column: str
    first: Literal[0, 1] = 0
    """Number of the first candidate."""


class Strength(Strict):
    """A signed number: the sign says which of two is better, the size by how much; 0 is a tie."""

    column: str
    first: Literal["negative", "positive"]
    """Sign that prefers the first candidate. The size becomes the margin."""
    center: float = 0.0
    """Number that is a tie, subtracted first: 1.5 for preferences from 1 to 2."""
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
    votes: Votes | None = None
    acceptable: Acceptable | None = None
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
        orders = [self.label, self.strength, self.votes, self.acceptable, self.good, self.in_order]
        return sum(map(bool, orders)) == 1 or bool(self.score or self.rank or self.parallel.score)


def listed_paths(paths: Paths | None) -> list[str]:
    """Return one path or several as a list."""
    return paths if isinstance(paths, list) else [paths] if paths else []


def inner_paths(spec: Candidates) -> list[str]:
    """Return paths in a candidate; they are columns if each candidate is a row."""
    paths = [spec.text, spec.model or "", spec.good or "", *listed_paths(spec.score)]
    paths += [spec.rank.path] if spec.rank else []
    return paths + (spec.doubt.mean_of if spec.doubt else [])


def candidate_paths(spec: Candidates | None) -> list[str]:
    """Return paths in a row, not in a candidate."""
    if spec is None:
        return []
    label, strength, votes, acceptable = spec.label, spec.strength, spec.votes, spec.acceptable
    given = [spec.items, spec.parallel.score, spec.parallel.model]
    given += [strength.column] if strength else []
    given += [votes.columns] if votes else []
    given += [acceptable.column] if acceptable else []
    given += [label.column, list(label.one_hot)] if label else []
    return [path for paths in given for path in listed_paths(paths)]
