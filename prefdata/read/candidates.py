"""The candidates of a row, put in order by its ranks, scores or label, and paired."""

from typing import Any, NamedTuple

from prefdata.read.canonical import Messages, canonical_json
from prefdata.read.faults import RowFault
from prefdata.read.fields import getter, optional_number, optional_text, require
from prefdata.read.layout import Candidates, Layout
from prefdata.read.limits import Limits, Pairing
from prefdata.read.messages import read_completion
from prefdata.read.pairing import dense_ranks, pair_up
from prefdata.read.pairs import Pair


class Candidate(NamedTuple):
    """One completion, and what orders it."""

    completion: Messages
    score: float | None
    rank: float | None  # turned round where low is best, so that higher is better
    model: str | None


class CandidateReader:
    """The candidates of one layout, compiled."""

    def __init__(self, layout: Layout, pairing: Pairing, limits: Limits) -> None:
        assert layout.candidates is not None
        self.spec: Candidates = layout.candidates
        self.roles, self.pairing = layout.roles, pairing
        self.max_completions = limits.max_completions
        paths = {"text": self.spec.text, "score": self.spec.score, "model": self.spec.model}
        self.get = {name: getter(path) for name, path in paths.items() if path}
        self.get_rank = getter(self.spec.rank.path) if self.spec.rank else None

    def pairs(self, row: dict[str, Any], prompt_id: bytes) -> list[Pair]:
        """Every pair of the strategy; a RowFault where the row prefers nothing."""
        found = [self._candidate(place, item) for place, item in self._items(row)]
        if len(found) < 2:
            raise RowFault("PD303", "fewer than two completions, so nothing is preferred")
        values = self._values(row, found)
        ranks = dense_ranks(values)
        if max(ranks) == 1:
            raise RowFault("PD303", f"all {len(found)} completions rank the same")
        return [
            _pair(found[match.chosen], found[match.rejected], match.tie)._replace(
                chosen_rank=ranks[match.chosen], rejected_rank=ranks[match.rejected]
            )
            for match in pair_up(values, self.pairing, prompt_id)
        ]

    def _items(self, row: dict[str, Any]) -> list[tuple[str, Any]]:
        paths = self.spec.items
        if isinstance(paths, list):
            return [(path, require(path, getter(path)(row), "any")) for path in paths]
        items = require(paths, getter(paths)(row), "list")
        if len(items) > self.max_completions:
            limit = f"limits.max_completions is {self.max_completions:,}"
            raise RowFault("R212", f"`{paths}` holds {len(items):,} completions; {limit}")
        return [(f"{paths}[{place}]", item) for place, item in enumerate(items)]

    def _candidate(self, place: str, item: Any) -> Candidate:
        def field(name: str) -> Any:
            return self.get[name](item) if name in self.get else None

        where = f"{place}.{self.spec.text}" if self.spec.text else place
        text = require(where, field("text") if self.spec.text else item, "any")
        rank = None
        if self.spec.rank and self.get_rank:
            rank = optional_number(f"{place}.{self.spec.rank.path}", self.get_rank(item))
            if rank is not None and self.spec.rank.best == "low":
                rank = -rank
        return Candidate(
            read_completion(where, text, self.roles),
            optional_number(f"{place}.{self.spec.score}", field("score")),
            rank,
            optional_text(f"{place}.{self.spec.model}", field("model")),
        )

    def _values(self, row: dict[str, Any], found: list[Candidate]) -> list[float]:
        """What orders the candidates, higher is better: the label, else ranks, else scores."""
        if self.spec.label:
            return self._label_values(row, len(found))
        for name, values in (
            ("rank", [c.rank for c in found]),
            ("score", [c.score for c in found]),
        ):
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                return known
            if known:
                missing = len(values) - len(known)
                raise RowFault("R211", f"{missing} of {len(values)} completions have no {name}")
        raise RowFault("R211", "the completions have neither a rank nor a score")

    def _label_values(self, row: dict[str, Any], num: int) -> list[float]:
        assert self.spec.label is not None
        column = self.spec.label.column
        value = require(column, getter(column)(row), "any")
        said = value if type(value) is str else canonical_json(value)
        if said not in self.spec.label.map:
            known = ", ".join(self.spec.label.map)
            raise RowFault("R210", f"`{column}` is {said!r}, which is none of {known}")
        winner = self.spec.label.map[said]
        return [float(place == winner) for place in range(num)]


def _pair(chosen: Candidate, rejected: Candidate, tie: bool) -> Pair:  # noqa: FBT001 - a fact
    return Pair(
        chosen.completion,
        rejected.completion,
        score_chosen=chosen.score,
        score_rejected=rejected.score,
        model_chosen=chosen.model,
        model_rejected=rejected.model,
        tie=tie,
    )
