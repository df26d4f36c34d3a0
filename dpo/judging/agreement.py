"""Agreement of verdicts with labels or with other verdicts, and position bias, with intervals.

Accuracy has Wilson's interval, over prompts. Cohen's κ and position bias have the percentile
bootstrap over prompts, 2,000 resamples with a fixed seed, since pairs of one prompt are not
independent. All intervals are of 95 %. Where all prompts give the same, resamples do too, and the
interval is Wilson's for a thing that was not seen in this many prompts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from dpo.errors import UsageError
from dpo.judging.candidates import CandidateRow
from dpo.judging.verdicts import UNREADABLE, outcomes_of, votes_of
from prefdata.check.sets.statistics import Estimate, share

Table = NDArray[np.float64]
"""Counts of each prompt, (prompts, columns)."""
Statistic = Callable[[Table], Table]
"""Function from sums of counts, (resamples, columns), to values, (resamples,)."""
_RESAMPLES, _AT_ONCE = 2000, 100
Pairs = dict[str, dict[tuple[str, str], int]]
"""By prompt and by two completions, in the order of their hashes: 1 if the first is better, -1 if
the second is, 0 for a tie."""


class Agreement(NamedTuple):
    """Agreement over the pairs that both files decide."""

    num_pairs: int
    num_prompts: int
    num_missing: int
    """Pairs of the verdicts that are not in the other file, or not the other way round."""
    agreement: Estimate
    """Share of pairs with the same outcome; a tie is one of three."""
    kappa: Estimate
    """Cohen's κ of the three outcomes; NaN if both files have only one."""
    accuracy: Estimate | None
    """Share of right outcomes over pairs whose label is not a tie; a tie counts half."""


class VerdictCounts(NamedTuple):
    """Summary of a file of verdicts."""

    num_rows: int
    num_unreadable_rows: int
    num_verdicts: int
    num_unreadable: int
    num_pairs: int
    """Pairs of completions whose verdicts are readable."""
    num_ties: int
    """Pairs that are a tie, for whatever reason."""
    num_flips: int
    """Ties whose two verdicts differ."""
    bias: Estimate | None
    """Share of verdicts, without ties, for the answer that was shown first; 0.5 without bias. None
    if no pair was shown in both orders."""


def count_verdicts(rows: Sequence[CandidateRow]) -> VerdictCounts:
    """Return the summary of judged rows; raise T184 without verdicts."""
    if not any(row.verdicts for row in rows):
        raise UsageError("T184", rows[0].place, "has no verdicts", "name a file of dpo-judge")
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    pairs: list[int | None] = []
    flips = 0
    for row in rows:
        votes = list(votes_of(row.verdicts))
        outcomes = outcomes_of(votes)
        pairs += _decided(row) if not votes else outcomes.values()
        for pair, outcome in outcomes.items():
            said = [vote.outcome for vote in votes if {vote.first, vote.second} == {*pair}]
            flips += outcome == 0 and set(said) != {"tie"}
            if len(said) == 2 and UNREADABLE not in said:
                counts[prompt_key(row)][0] += said.count("first")
                counts[prompt_key(row)][1] += len(said) - said.count("tie")
    table = np.array(list(counts.values())).reshape(-1, 2)
    verdicts = [one.get("verdict") for row in rows for one in row.verdicts]
    return VerdictCounts(
        num_rows=len(rows),
        num_unreadable_rows=sum(_is_unreadable(row) for row in rows),
        num_verdicts=len(verdicts),
        num_unreadable=verdicts.count(UNREADABLE),
        num_pairs=len(pairs) - pairs.count(None),
        num_ties=pairs.count(0),
        num_flips=flips,
        bias=bootstrap(table, _first_share, least=0.0) if table[:, 1].sum() else None,
    )


def _is_unreadable(row: CandidateRow) -> bool:
    return any(one.get("verdict") == UNREADABLE for one in row.verdicts)


def _decided(row: CandidateRow) -> list[int | None]:
    """Return the outcomes of pairs by their places; None for all if one place is missing."""
    orders = [candidate.order for candidate in row.candidates]
    return [
        None if one is None or other is None else int(np.sign(one - other))
        for one, other in combinations(orders, 2)
    ]


def prompt_key(row: CandidateRow) -> str:
    """Return what rows of one prompt have in common."""
    return orjson.dumps(row.shown).decode()


def preferences(rows: Iterable[CandidateRow]) -> Pairs:
    """Return the outcome of each pair of completions whose places are known; the first counts."""
    found: Pairs = defaultdict(dict)
    for row in rows:
        named = [(_digest(candidate.text), candidate.order) for candidate in row.candidates]
        for (one, order), (other, than) in combinations(sorted(named, key=_by_name), 2):
            if order is not None and than is not None and one != other:
                found[prompt_key(row)].setdefault((one, other), int(np.sign(order - than)))
    return found


def _by_name(named: tuple[str, Any]) -> str:
    return named[0]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def agree(verdicts: Pairs, others: Pairs, places: tuple[str, str]) -> Agreement:
    """Return the agreement of verdicts with labels or other verdicts; T184 without shared pairs."""
    tables, shared = [], 0
    for prompt, pairs in verdicts.items():
        counts = np.zeros((3, 3))
        for pair in pairs.keys() & others.get(prompt, {}).keys():
            counts[pairs[pair] + 1, others[prompt][pair] + 1] += 1
        if counts.any():
            tables.append(counts.ravel())
            shared += int(counts.sum())
    if not tables:
        problem = f"has no pair in common with {places[1]} whose outcome both know"
        remedy = "name files of the same prompts and completions, with ranks, scores or labels"
        raise UsageError("T184", places[0], problem, remedy)
    table = np.stack(tables)
    (right,), (same,) = _accuracy(table.sum(0)[None]), _same(table.sum(0)[None])
    judged = int((table.reshape(-1, 3, 3)[:, :, [0, 2]].sum((1, 2)) > 0).sum())
    total = sum(len(pairs) for pairs in verdicts.values())
    total += sum(len(pairs) for pairs in others.values())
    return Agreement(
        num_pairs=shared,
        num_prompts=len(table),
        num_missing=total - 2 * shared,
        agreement=share(same * len(table), len(table)),
        kappa=bootstrap(table, _kappa),
        accuracy=share(right * judged, judged) if judged else None,
    )


def _first_share(sums_RC: Table) -> Table:
    with np.errstate(invalid="ignore"):
        shares: Table = sums_RC[:, 0] / sums_RC[:, 1]
    return shares


def _same(sums_RC: Table) -> Table:
    shares: Table = sums_RC[:, [0, 4, 8]].sum(1) / sums_RC.sum(1)
    return shares


def _accuracy(sums_RC: Table) -> Table:
    """Return right outcomes as a share of pairs with a label; ties of the verdict count half."""
    found = sums_RC.reshape(-1, 3, 3)  # verdict by label: -1, 0, 1
    right = found[:, 0, 0] + found[:, 2, 2] + (found[:, 1, 0] + found[:, 1, 2]) / 2
    with np.errstate(invalid="ignore"):
        shares: Table = right / found[:, :, [0, 2]].sum((1, 2))
    return shares


def _kappa(sums_RC: Table) -> Table:
    """Return Cohen's κ (https://doi.org/10.1177/001316446002000104); NaN for one outcome only."""
    found = sums_RC.reshape(-1, 3, 3)
    chance = (found.sum(1) * found.sum(2)).sum(1) / found.sum((1, 2)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (_same(sums_RC) - chance) / (1 - chance), np.nan)


def bootstrap(table: Table, statistic: Statistic, *, least: float = -1.0) -> Estimate:
    """Return a statistic of the summed counts with its percentile interval over prompts.

    The statistic is between `least` and 1.
    """
    (value,) = statistic(table.sum(0)[None])
    num = len(table)
    rng = np.random.default_rng(0)
    kinds, counts = np.unique(table, axis=0, return_counts=True)  # few: equal prompts draw as one
    draws = [
        statistic(rng.multinomial(num, counts / num, size=_AT_ONCE) @ kinds)
        for _ in range(_RESAMPLES // _AT_ONCE)
    ]
    values = np.concatenate(draws)
    values = values[np.isfinite(values)]
    if np.isnan(value) or not len(values):
        return Estimate(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(values, [0.025, 0.975])
    if high - low < 1e-12:
        unseen = share(0, num).high
        low, high = max(low - unseen, least), min(high + unseen, 1.0)
    return Estimate(float(value), float(low), float(high))
