"""Candidates of a row: read, ordered and paired."""

from collections.abc import Iterator
from typing import Any

from prefdata.read.adapt.columns import Pair
from prefdata.read.adapt.fields import (
    Getter,
    at_path,
    getter,
    mean,
    number_reader,
    optional_text,
    require,
)
from prefdata.read.adapt.ids import Messages
from prefdata.read.adapt.messages import alternate, read_completion, read_messages
from prefdata.read.adapt.ranking import (
    Candidate,
    cross_tiers,
    dense_ranks,
    orderer,
    pair_up,
    read_tier,
)
from prefdata.read.faults import RowError
from prefdata.read.layouts.candidates import Candidates
from prefdata.read.layouts.model import Layout
from prefdata.read.limits import Limits, Pairing


class CandidateReader:
    """Reader of the candidates of one layout."""

    def __init__(self, layout: Layout, pairing: Pairing, limits: Limits) -> None:
        assert layout.candidates is not None
        self.spec: Candidates = layout.candidates
        self.roles, self.pairing, self.interleave = layout.roles, pairing, layout.interleave
        self.ends_dialogue = layout.sides == "last_two_turns"
        self.whole = layout.sides not in ("completion", "last_two_turns")
        """True if candidates are dialogues, prompt and all."""
        self.plain = not (self.whole or self.interleave)
        self.max_completions = limits.max_completions
        self.number = number_reader(layout.missing)
        self.order = orderer(self.spec)
        self.get_text = getter(self.spec.text)
        self.get_model = getter(self.spec.model or "")
        self.get_rank = getter(self.spec.rank.path) if self.spec.rank else None
        self.get_good = getter(self.spec.good) if self.spec.good else None
        scores = self.spec.score if isinstance(self.spec.score, list) else [self.spec.score]
        self.get_scores = [(path, getter(path)) for path in scores if path]
        self.doubt = doubt = self.spec.doubt
        self.get_aspects = [(path, getter(path)) for path in doubt.mean_of] if doubt else []
        self.text, self.model, self.rank = self.spec.text, self.spec.model, self.spec.rank

    def read(self, row: dict[str, Any]) -> list[Candidate]:
        """Return every candidate of the row, in the order given."""
        items = list(self._items(row))
        if len(items) > self.max_completions:
            limit = f"limits.max_completions is {self.max_completions:,}"
            raise RowError("R212", f"the row holds {len(items):,} completions; {limit}")
        scores = self._parallel(row, "score", self.spec.parallel.score, len(items))
        models = self._parallel(row, "model", self.spec.parallel.model, len(items))
        users: list[str] = []
        if self.interleave:
            users = require(self.interleave, at_path(self.interleave, row), "list")
        found, good, get_good = [], self.spec.good, self.get_good
        for at, (place, item, tier) in enumerate(items):
            score, model = self._score(place, item), self._model(place, item)
            found.append(
                Candidate(
                    self._completion(place, item, users),
                    self.number(f"{place} score", scores[at]) if scores else score,
                    self._rank(place, item),
                    optional_text(f"{place} model", models[at]) if models else model,
                    tier if get_good is None else read_tier(f"{place}.{good}", get_good(item)),
                )
            )
        if len(found) < 2:
            raise RowError("PD303", "fewer than two completions, so nothing is preferred")
        return found

    def pairs(self, row: dict[str, Any], found: list[Candidate], prompt_id: bytes) -> list[Pair]:
        """Return the pairs of the strategy; raise RowError if all candidates rank the same."""
        order = self.order(row, found)
        ranks = dense_ranks(order.values)
        if max(ranks) == 1 and self.spec.good:
            raise RowError("R213", f"all {len(found)} rows of the prompt have the same label")
        keeps_ties = self.pairing.ties == "keep"
        if max(ranks) == 1 and not keeps_ties:
            raise RowError("PD303", f"all {len(found)} completions rank the same")
        if order.tiered:
            matches = cross_tiers(ranks)
        else:
            matches = pair_up(order.values, self.pairing, prompt_id)
        return [
            Pair(
                found[match.chosen].completion,
                found[match.rejected].completion,
                found[match.chosen].score,
                found[match.rejected].score,
                0.0 if match.tie else order.margin,
                found[match.chosen].model,
                found[match.rejected].model,
                ranks[match.chosen],
                ranks[match.rejected],
                match.tie and not keeps_ties,
                (match.chosen, match.rejected),
            )
            for match in matches
        ]

    def _items(self, row: dict[str, Any]) -> Iterator[tuple[str, Any, int | None]]:
        """Yield place, value and tier of each candidate."""
        paths = self.spec.items
        if not isinstance(paths, list):
            items = require(paths, at_path(paths, row), "list")
            items = items[-2:] if self.ends_dialogue else items
            yield from ((f"{paths}[{at}]", item, None) for at, item in enumerate(items))
            return
        for tier, path in enumerate(paths):
            value = require(path, at_path(path, row), "any")
            if self.spec.in_order and type(value) is list:
                yield from ((f"{path}[{at}]", item, tier) for at, item in enumerate(value))
            else:
                yield path, value, tier

    def _parallel(
        self, row: dict[str, Any], name: str, paths: str | list[str] | None, num: int
    ) -> list[Any]:
        """Return the values of a list parallel to the candidates, or [] if there is none."""
        if paths is None:
            return []
        if isinstance(paths, list):
            values = [at_path(path, row) for path in paths]
        else:
            values = at_path(paths, row)
            if type(values) is not list:
                return [] if name == "model" else require(paths, values, "list")
        if len(values) != num:
            raise RowError("R210", f"{len(values)} values of `{name}` for {num} completions")
        return values

    def _completion(self, place: str, item: Any, users: list[str]) -> Messages:
        value = self.get_text(item) if self.text else item
        if type(value) is str and self.plain:  # nearly all
            return [("assistant", value, None, None, None, None)]
        where = f"{place}.{self.text}" if self.text else place
        require(where, value, "any")
        if self.interleave:
            return _woven(place, users, value)
        if self.whole:
            return read_messages(where, require(where, value, "list"), self.roles)
        return read_completion(where, value, self.roles)

    def _rank(self, place: str, item: Any) -> float | None:
        if self.get_rank is None or self.rank is None:
            return None
        rank = self.number(f"{place}.{self.rank.path}", self.get_rank(item))
        return -rank if rank is not None and self.rank.best == "low" else rank

    def _score(self, place: str, item: Any) -> float | None:
        score = self._mean(place, self.get_scores, item) if self.get_scores else None
        doubt = self.doubt
        if doubt and score == doubt.value:
            others = self._mean(place, self.get_aspects, item)
            if others is not None and others <= doubt.at_most:
                problem = f"`{place}` has the score {score:g}, and its aspects' mean is {others:g}"
                raise RowError("PD306", problem)
        return score

    def _mean(self, place: str, paths: list[tuple[str, Getter]], item: Any) -> float | None:
        if len(paths) == 1:
            ((path, get),) = paths
            return self.number(f"{place}.{path}", get(item))
        return mean([self.number(f"{place}.{path}", get(item)) for path, get in paths])

    def _model(self, place: str, item: Any) -> str | None:
        if not self.model:
            return None
        value = self.get_model(item)
        return value if type(value) is str else optional_text(f"{place}.{self.model}", value)


def _woven(place: str, users: list[Any], answers: Any) -> Messages:
    """Return the dialogue that alternates the user's turns and the answers to them."""
    texts = [*users, *answers] if type(answers) is list else [None]
    if any(type(text) is not str for text in texts):
        raise RowError("R210", f"`{place}` is not a list of texts")
    if len(users) != len(answers):
        problem = f"{len(answers)} answers to {len(users)} turns of the user"
        raise RowError("R210", f"`{place}` holds {problem}")
    return alternate(zip(users, answers, strict=True))
