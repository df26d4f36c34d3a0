"""Templates of judges: a question in Jinja, and how the verdict is read from the reply.

Shipped ones are named; others are YAML files of the same form. A verdict is a whole line that
`verdict` matches. If no line does, or lines differ, the reply is unreadable: it is never guessed.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import PrivateAttr, model_validator
from pydantic_core import ErrorDetails

from dpo.errors import UsageError
from prefdata.settings import StrictModel, load_model, nearest_key, read_settings

T = TypeVar("T")
Outcome = Literal["first", "second", "tie"]
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=False
)
_REMEDY = "see docs/sampling.md for the form"


class Template(StrictModel):
    """A question to a judge."""

    name: str
    about: str = ""
    kind: Literal["pairwise", "rating", "ranking"]
    """`pairwise` has `first` and `second`, `rating` has `answer`, `ranking` has `answers`, each
    with `label` and `text`; all have `prompt`, the text of the request, and `fence`, a word that
    stands in none of the texts."""
    user: str
    """The question, in Jinja."""
    system: str | None = None
    """A system turn before it, in Jinja; not all models take one."""
    verdict: str
    """Regular expression of a whole line of the reply, any case, whose one group is the verdict: a
    key of `outcomes`, a number, or labels joined by > and =."""
    outcomes: dict[str, Outcome] = {}  # noqa: RUF012 - a field of pydantic
    """Verdicts of `pairwise`."""
    lowest: float | None = None
    highest: float | None = None
    """Range of `rating`."""
    _sha256: str = PrivateAttr("")

    @model_validator(mode="after")
    def _is_whole(self) -> "Template":
        try:
            if re.compile(self.verdict).groups != 1:
                raise ValueError("`verdict` needs exactly one group")
            _ENVIRONMENT.from_string(self.user + (self.system or ""))
        except re.error as error:
            raise ValueError(f"`verdict` is not a regular expression: {error}") from error
        except jinja2.TemplateError as error:
            raise ValueError(f"is not a template of Jinja: {error}") from error
        if (self.kind == "pairwise") != bool(self.outcomes):
            raise ValueError("`outcomes` belongs to kind pairwise, which needs it")
        ends = [end is not None for end in (self.lowest, self.highest)]
        if not (all(ends) if self.kind == "rating" else not any(ends)):
            raise ValueError("`lowest` and `highest` belong to kind rating, which needs them")
        return self

    @property
    def sha256(self) -> str:
        """Return the hash of everything that decides a question and its verdict."""
        return hashlib.sha256(self.model_dump_json(exclude={"about"}).encode()).hexdigest()

    def messages(self, **values: Any) -> list[dict[str, Any]]:
        """Return the turns of a question; raise T178 if the template cannot be rendered."""
        turns = [("system", self.system)] if self.system else []
        try:
            return [
                {"role": role, "content": _ENVIRONMENT.from_string(text or "").render(**values)}
                for role, text in [*turns, ("user", self.user)]
            ]
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError) as error:
            raise _invalid(self.name, f"cannot be rendered: {error}", _REMEDY) from error

    def read_outcome(self, reply: str) -> str | None:
        """Return the verdict on a pair; None if it is unreadable."""
        outcomes = {key.casefold(): outcome for key, outcome in self.outcomes.items()}
        return _one([outcomes.get(said.casefold()) for said in self._said(reply)])

    def read_rating(self, reply: str) -> float | None:
        """Return the rating; None if it is unreadable or out of range."""
        found = _one([_number(said) for said in self._said(reply)])
        assert self.lowest is not None
        assert self.highest is not None
        return found if found is not None and self.lowest <= found <= self.highest else None

    def read_ranking(self, reply: str, num: int) -> tuple[int, ...] | None:
        """Return the rank of each answer, 1 for the best; None unless each is ranked once."""
        return _one([_ranks(said, num) for said in self._said(reply)])

    def _said(self, reply: str) -> list[str]:
        pattern = re.compile(self.verdict, re.IGNORECASE)
        found = (pattern.fullmatch(line) for line in reply.splitlines())
        return [match[1] or "" for match in found if match]


def _one(values: Sequence[T | None]) -> T | None:
    """Return the value that all lines give; None if there is none or they differ."""
    return values[0] if values and all(value == values[0] for value in values) else None


def load_template(name: str) -> Template:
    """Load a template by the name of a shipped one or by its path; raise T178."""
    folder = resources.files("dpo.judging") / "templates"
    shipped = [Path(one.name).stem for one in folder.iterdir() if one.name.endswith(".yaml")]
    path = Path(str(folder / f"{name}.yaml")) if name in shipped else Path(name)
    if name not in shipped and not (path.suffix in (".yaml", ".yml") or "/" in name):
        remedy = f"shipped are {', '.join(sorted(shipped))}; or name a YAML file"
        raise _invalid(name, "is not a template", remedy)
    settings = read_settings(path, partial(_invalid, str(path)))

    def refuse(place: str, fault: ErrorDetails) -> UsageError:
        problem = fault["msg"].removeprefix("Value error, ")
        remedy = _REMEDY
        if fault["type"] == "extra_forbidden":
            problem, remedy = "no such key", nearest_key(Template, fault["loc"])
        return _invalid(str(path), f"{place}: {problem}" if place else problem, remedy)

    return load_model(Template, _as_floats(settings), refuse)


def _invalid(place: str, problem: str, remedy: str) -> UsageError:
    return UsageError("T178", place, problem, remedy)


def _as_floats(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose range is of floats, which strict models ask for."""
    return {
        key: float(value) if key in ("lowest", "highest") and type(value) is int else value
        for key, value in settings.items()
    }


def _number(said: str) -> float | None:
    try:
        return float(said)
    except ValueError:
        return None


def _ranks(said: str, num: int) -> tuple[int, ...] | None:
    """Return the rank of each label's answer.

    >>> _ranks("b > a = C", 3), _ranks("A > B", 3)
    ((2, 1, 2), None)
    """
    groups = [re.findall("[A-Z]", part) for part in said.upper().split(">")]
    ranks = {label: rank for rank, group in enumerate(groups, 1) for label in group}
    listed = [label for group in groups for label in group]
    if sorted(listed) != list(LABELS[:num]):
        return None
    return tuple(ranks[label] for label in LABELS[:num])
