"""Accuracy, Cohen's κ and position bias: known values, and how often intervals contain them."""

import math

import numpy as np
import pytest

from dpo.errors import UsageError
from dpo.judging.agreement import Pairs, agree, bootstrap, count_verdicts, preferences
from dpo.judging.candidates import Candidate, CandidateRow
from dpo.judging.verdicts import outcomes_of, ranks_of, votes_of

NAMES = ("verdicts", "labels")


def pairs(outcomes: list[int]) -> Pairs:
    return {str(at): {("a", "b"): outcome} for at, outcome in enumerate(outcomes)}


def test_kappa_is_that_of_a_textbook() -> None:
    """20 both yes, 15 both no, 5 and 10 apart: κ = 0.4 (Wikipedia's example of Cohen's kappa)."""
    one = [1] * 25 + [-1] * 25
    other = [1] * 20 + [-1] * 5 + [1] * 10 + [-1] * 15

    found = agree(pairs(one), pairs(other), NAMES)

    assert found.kappa.value == pytest.approx(0.4)
    assert found.agreement.value == pytest.approx(0.7)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(0.7)


def test_a_tie_counts_half_and_a_tied_label_not_at_all() -> None:
    found = agree(pairs([1, 0, -1, 1]), pairs([1, 1, 1, 0]), NAMES)

    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.agreement.value == 0.25


def test_verdicts_that_all_agree_still_have_an_interval() -> None:
    found = agree(pairs([1, -1] * 20), pairs([1, -1] * 20), NAMES)

    assert found.kappa.value == 1
    assert 0.8 < found.kappa.low < 1
    assert found.accuracy is not None
    assert 0.9 < found.accuracy.low < 1


def test_one_outcome_throughout_has_no_kappa() -> None:
    assert math.isnan(agree(pairs([1] * 9), pairs([1] * 9), NAMES).kappa.value)


def test_files_without_a_common_pair_are_refused() -> None:
    with pytest.raises(UsageError, match=r"verdicts: has no pair in common with labels.*\[T184\]$"):
        agree(pairs([1]), {"other": {("a", "b"): 1}}, NAMES)


def test_intervals_contain_the_true_value_in_nineteen_of_twenty_samples() -> None:
    """Draw sets of 150 pairs from a judge whose accuracy, κ and bias follow from its rates."""
    rng, error, bias = np.random.default_rng(5), 0.1, 0.2
    if_first, if_second = bias + (1 - bias) * (1 - error), (1 - bias) * (1 - error)
    right, wrong = if_first * if_second, (1 - if_first) * (1 - if_second)
    chance = (right + wrong) / 2
    truth = {"accuracy": (if_first + if_second) / 2, "kappa": (right - chance) / (1 - chance)}
    hits = dict.fromkeys(truth, 0)
    share = 0
    for _ in range(200):
        label = rng.choice([-1, 1], 150)
        votes = [np.where(rng.random(150) < p, label, -label) for p in (if_first, if_second)]
        verdict = np.where(votes[0] == votes[1], votes[0], 0)
        found = agree(pairs(verdict.tolist()), pairs(label.tolist()), NAMES)
        assert found.accuracy is not None
        for name, one in (("accuracy", found.accuracy), ("kappa", found.kappa)):
            hits[name] += one.low <= truth[name] <= one.high
        firsts = (votes[0] == label).astype(float) + (votes[1] != label)  # shown first, and won
        one = bootstrap(np.stack([firsts, np.full(150, 2.0)], 1), lambda s: s[:, 0] / s[:, 1])
        share += one.low <= (1 + bias) / 2 <= one.high

    assert all(180 <= num <= 200 for num in (*hits.values(), share)), (hits, share)


def row(
    *texts: str, orders: list[float | None], verdicts: list[dict] | None = None
) -> CandidateRow:
    found = [Candidate(t, t, {}, order) for t, order in zip(texts, orders, strict=True)]
    return CandidateRow("f:1", "Who?", "Who?", tuple(found), {}, verdicts or [])


def test_preferences_do_not_depend_on_the_order_in_a_file() -> None:
    one = preferences([row("a", "b", "c", orders=[1, 2, 2])])
    other = preferences([row("c", "a", "b", orders=[5, 3, 5])])

    assert one == other
    assert len(one['"Who?"']) == 3
    assert preferences([row("a", "b", orders=[None, None])]) == {}
    assert preferences([row("a", "a", orders=[1, 2])]) == {}


def said(*votes: tuple[int, int, str]) -> list[dict]:
    return [{"first": a, "second": b, "verdict": v, "text": ""} for a, b, v in votes]


def test_two_orders_that_disagree_are_a_tie() -> None:
    agreed = said((0, 1, "first"), (1, 0, "second"))
    swayed = said((0, 1, "first"), (1, 0, "first"))
    half = said((0, 1, "first"), (1, 0, "tie"))
    unread = said((0, 1, "first"), (1, 0, "unreadable"))

    assert [ranks_of(2, one) for one in (agreed, swayed, half)] == [[1, 2], [1, 1], [1, 1]]
    assert ranks_of(2, unread) is None
    assert outcomes_of(list(votes_of(unread))) == {(0, 1): None}


def test_a_cycle_of_three_is_a_tie_and_an_order_of_three_is_an_order() -> None:
    cycle = said((0, 1, "first"), (1, 2, "first"), (0, 2, "second"))
    order = said((0, 1, "first"), (1, 2, "first"), (0, 2, "first"))

    assert ranks_of(3, cycle) == [1, 1, 1]
    assert ranks_of(3, order) == [1, 2, 3]


def test_rankings_of_both_orders_are_compared_pair_by_pair() -> None:
    forward = {"order": [0, 1, 2], "verdict": [1, 2, 3], "text": ""}
    backward = {"order": [2, 1, 0], "verdict": [2, 3, 1], "text": ""}  # 0 best, then 2, then 1

    assert ranks_of(3, [forward, backward]) == [1, 2, 2]
    assert ranks_of(3, [forward, {**backward, "verdict": "unreadable"}]) is None


def test_counts_of_verdicts_name_ties_flips_and_bias() -> None:
    swayed = said((0, 1, "first"), (1, 0, "first"))
    tied = said((0, 1, "tie"), (1, 0, "tie"))
    unread = said((0, 1, "first"), (1, 0, "unreadable"))
    places: list[float | None] = [1, 1]
    rows = [row("a", "b", orders=places, verdicts=one) for one in (swayed, tied, unread)]

    found = count_verdicts(rows)

    assert (found.num_rows, found.num_verdicts, found.num_unreadable) == (3, 6, 1)
    assert (found.num_unreadable_rows, found.num_pairs, found.num_ties) == (1, 2, 2)
    assert found.num_flips == 1
    assert found.bias is not None
    assert found.bias.value == 1
    half = said((0, 1, "first"), (1, 0, "second"))
    unbiased = count_verdicts([row("a", "b", orders=places, verdicts=half)] * 2).bias
    assert unbiased is not None
    assert (unbiased.low, unbiased.value, unbiased.high) == (0.0, 0.5, 1.0)
