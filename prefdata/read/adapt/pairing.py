"""Pairs of ranked completions, by a named strategy; equal ranks are ties, never a preference."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from blake3 import blake3

from prefdata.read.limits import Pairing


class Match(NamedTuple):
    """Two indices in a list of completions; a tie if neither is better."""

    chosen: int
    rejected: int
    tie: bool


def pair_up(values: Sequence[float], pairing: Pairing, prompt_id: bytes) -> list[Match]:
    """Return the pairs of one prompt's completions, higher values first; ties are included.

    `best_vs_random` draws from the seed and the prompt only, so neither the order nor the number
    of the rows changes the draw.
    """
    order = sorted(range(len(values)), key=lambda place: -values[place])  # stable
    if len(order) < 2:
        return []
    if pairing.strategy == "best_vs_worst":
        places = [(order[0], order[-1])]
    elif pairing.strategy == "adjacent":
        places = list(pairwise(order))
    elif pairing.strategy == "all":
        places = list(combinations(order, 2))
    else:
        worse = [place for place in order if values[place] < values[order[0]]] or order[-1:]
        draw = blake3(pairing.seed.to_bytes(8, "little") + prompt_id).digest(length=8)
        places = [(order[0], worse[int.from_bytes(draw, "little") % len(worse)])]
    return [Match(c, r, values[c] == values[r]) for c, r in places]


def cross_tiers(ranks: Sequence[int]) -> list[Match]:
    """Pair each candidate with each of the next tier; one tier's candidates were never compared.

    >>> [match[:2] for match in cross_tiers([1, 2, 1])]
    [(0, 1), (2, 1)]
    """
    places = range(len(ranks))
    return [
        Match(better, worse, tie=False)
        for better in places
        for worse in places
        if ranks[worse] == ranks[better] + 1
    ]


def dense_ranks(values: Sequence[float]) -> list[int]:
    """Return 1 for the best value and the next number for each worse one; ties share a rank.

    >>> dense_ranks([0.5, 0.9, 0.5])
    [2, 1, 2]
    """
    places = {value: rank for rank, value in enumerate(sorted(set(values), reverse=True), 1)}
    return [places[value] for value in values]
