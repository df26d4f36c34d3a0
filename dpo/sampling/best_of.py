"""Best-of-N: of N completions the one with the highest score, a baseline of the DPO paper (§6).

It needs no training and N times the sampling. How far it is from the model is known without a
reference: at most log N − (N − 1)/N nats of KL, whatever the scorer (`best_of_kl`).
"""

import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def keep_best(
    completions: Sequence[T], scores: Sequence[float], best_of: int
) -> tuple[list[T], list[float]]:
    """Return the best of each `best_of` completions in turn, and its score; the first of equals."""
    starts = range(0, len(scores), best_of)
    best = [max(range(at, at + best_of), key=scores.__getitem__) for at in starts]
    return [completions[at] for at in best], [scores[at] for at in best]


def best_of_kl(n: int) -> float:
    """Return an upper bound of KL(best of n ‖ model) per prompt, in nats: log n − (n − 1)/n.

    It is the KL itself if no two completions have the same score and each is unlikely; else the KL
    is smaller (https://arxiv.org/abs/2401.01879).
    """
    return math.log(n) - (n - 1) / n


def expected_best(scores: Sequence[float], n: int) -> float:
    """Return the mean, over all subsets of n of these scores, of the subset's best.

    So a file of 64 completions a prompt gives best-of-N without bias for every N up to 64. The i-th
    lowest of m scores is the best of C(i − 1, n − 1) of the C(m, n) subsets.

    >>> expected_best([1.0, 2.0, 6.0], 2)  # of (2, 6, 6)
    4.666666666666667
    """
    subsets = math.comb(len(scores), n)
    if n < 1 or subsets == 0:
        message = f"best of {n} needs at least {max(n, 1)} scores, not {len(scores)}"
        raise ValueError(message)
    ranked = enumerate(sorted(scores))
    return sum(score * math.comb(below, n - 1) for below, score in ranked) / subsets
