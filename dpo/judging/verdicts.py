"""Questions of a row to a judge, its verdicts, and the ranks that follow from them.

A pair is asked for in both orders. It is decided if both verdicts agree; if they differ, it is a
tie, since the judge then follows the order. Three completions and more are ranked by their points:
1 for each pair that a completion wins, ½ for each tie (Copeland). One unreadable verdict leaves the
row without ranks.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from dpo.judging.candidates import Candidate, CandidateRow
from dpo.judging.template import LABELS, Template
from dpo.server.generate import Answer

UNREADABLE = "unreadable"


class Question(NamedTuple):
    """A question to the judge, and how its reply is read."""

    about: dict[str, Any]
    """What the verdict is on, by the numbers of completions from 0."""
    messages: list[dict[str, Any]]
    read: Callable[[str], Any]
    """Function from the reply to a verdict; None if it is unreadable."""


class Vote(NamedTuple):
    """A verdict on two completions, by their numbers, in the order in which they were shown."""

    first: int
    second: int
    outcome: str
    """`first`, `second`, `tie` or `unreadable`."""


def questions(row: CandidateRow, template: Template) -> Iterator[Question]:
    """Yield the questions that a row needs: pairs and rankings in both orders."""
    texts = [candidate.text for candidate in row.candidates]
    shown = {"prompt": row.shown, "fence": fence_of([row.shown, *texts])}
    if template.kind == "rating":
        for at, text in enumerate(texts):
            messages = template.messages(answer=text, **shown)
            yield Question({"of": at}, messages, template.read_rating)
    elif template.kind == "pairwise":
        for one, other in combinations(range(len(texts)), 2):
            for a, b in ((one, other), (other, one)):
                messages = template.messages(first=texts[a], second=texts[b], **shown)
                yield Question({"first": a, "second": b}, messages, template.read_outcome)
    else:
        order = list(range(len(texts)))
        for places in (order, order[::-1]):
            answers = [
                {"label": label, "text": texts[place]}
                for label, place in zip(LABELS, places, strict=False)
            ]
            messages = template.messages(answers=answers, **shown)
            yield Question({"order": places}, messages, _ranking_reader(template, len(places)))


def _ranking_reader(template: Template, num: int) -> Callable[[str], Any]:
    return lambda reply: template.read_ranking(reply, num)


def verdict_of(question: Question, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return what is kept of a question: the last reply's verdict and text, and earlier texts."""
    *earlier, last = [answer.text for answer in answers]
    found = read_answer(question, answers[-1])
    kept = {**question.about, "verdict": UNREADABLE if found is None else found, "text": last}
    return {**kept, "unread": earlier} if earlier else kept


def read_answer(question: Question, answer: Answer) -> Any:
    """Return a reply's verdict; None if it is unreadable, or was cut before its end."""
    return question.read(answer.text) if answer.ended else None


def fence_of(texts: Sequence[str]) -> str:
    """Return a word that stands in none of the texts."""
    seed = "\0".join(texts)
    while (fence := hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:8]) in seed:
        seed += fence
    return fence


def votes_of(verdicts: Sequence[dict[str, Any]]) -> Iterator[Vote]:
    """Yield the votes on pairs that verdicts hold; a ranking holds one on each of its pairs."""
    for one in verdicts:
        said = one.get("verdict")
        if "first" in one:
            yield Vote(one["first"], one["second"], str(said))
        elif "order" in one:
            for a, b in combinations(range(len(one["order"])), 2):
                outcome = UNREADABLE
                if isinstance(said, list | tuple):
                    outcome = "tie" if said[a] == said[b] else _named(said[a] < said[b])
                yield Vote(one["order"][a], one["order"][b], outcome)


def _named(is_first: bool) -> str:  # noqa: FBT001
    return "first" if is_first else "second"


def outcomes_of(votes: Sequence[Vote]) -> dict[tuple[int, int], int | None]:
    """Return each pair's outcome: 1 if the lower number wins, -1 if the other, 0 for a tie.

    None if a vote is unreadable.
    """
    found: dict[tuple[int, int], list[int | None]] = {}
    for vote in votes:
        value = {"first": 1, "second": -1, "tie": 0}.get(vote.outcome)
        is_swapped = vote.first > vote.second
        pair = (vote.second, vote.first) if is_swapped else (vote.first, vote.second)
        found.setdefault(pair, []).append(-value if value is not None and is_swapped else value)
    return {pair: _settled(values) for pair, values in found.items()}


def _settled(values: Sequence[int | None]) -> int | None:
    if None in values:
        return None
    return values[0] if all(value == values[0] for value in values) else 0


def ranks_of(num: int, verdicts: Sequence[dict[str, Any]]) -> list[int] | None:
    """Return the rank of each completion, 1 for the best; None if a verdict is unreadable."""
    if verdicts and "of" in verdicts[0]:
        ratings = [one["verdict"] for one in verdicts]
        return None if UNREADABLE in ratings else _dense([float(rating) for rating in ratings])
    points = [0.0] * num
    for (one, other), outcome in outcomes_of(list(votes_of(verdicts))).items():
        if outcome is None:
            return None
        points[one] += (1 + outcome) / 2
        points[other] += (1 - outcome) / 2
    return _dense(points)


def _dense(values: Sequence[float]) -> list[int]:
    ranks = {value: rank for rank, value in enumerate(sorted(set(values), reverse=True), 1)}
    return [ranks[value] for value in values]


def judged_row(
    row: CandidateRow, verdicts: list[dict[str, Any]], judge: dict[str, Any]
) -> dict[str, Any]:
    """Return one line of the output: the completions in their order, each with its rank."""
    ranks = ranks_of(len(row.candidates), verdicts)
    ratings = {one["of"]: one["verdict"] for one in verdicts if "of" in one}
    items = [
        _judged(candidate, ranks[at] if ranks else None, ratings.get(at))
        for at, candidate in enumerate(row.candidates)
    ]
    return {
        "prompt": row.prompt, **row.rest, "completions": items, "verdicts": verdicts,
        "judge": judge,
    }  # fmt: skip


def _judged(candidate: Candidate, rank: int | None, rating: Any) -> dict[str, Any]:
    item = {"text": candidate.value, **candidate.rest, "rank": rank}
    return item if rating in (None, UNREADABLE) else {**item, "score": rating}
