"""Train and test never share a prompt, and adding or removing rows moves no other row."""

import numpy as np
import pytest

from prefdata.hashing import Numbers, mix
from prefdata.stages.split import draw_test

GROUPS: Numbers = np.repeat(mix(np.arange(2000, dtype=np.uint64)), 2)


def test_no_prompt_is_in_both() -> None:
    in_test = draw_test(GROUPS, test_fraction=0.1, seed=0)

    assert not set(GROUPS[in_test]) & set(GROUPS[~in_test])
    assert 0.07 < in_test.mean() < 0.13


def test_removing_or_moving_rows_changes_no_other_split() -> None:
    in_test = draw_test(GROUPS, test_fraction=0.1, seed=0)
    some = np.arange(3999, 0, -3)

    assert (draw_test(GROUPS[some], test_fraction=0.1, seed=0) == in_test[some]).all()


def test_a_larger_fraction_only_adds() -> None:
    few = draw_test(GROUPS, test_fraction=0.1, seed=0)
    more = draw_test(GROUPS, test_fraction=0.2, seed=0)

    assert not (few & ~more).any()
    assert more.sum() > few.sum()


def test_the_seed_draws_another_test_set() -> None:
    first = draw_test(GROUPS, test_fraction=0.1, seed=0)

    assert (first == draw_test(GROUPS, test_fraction=0.1, seed=0)).all()
    assert (first != draw_test(GROUPS, test_fraction=0.1, seed=1)).any()


@pytest.mark.parametrize(("fraction", "num_test"), [(0.0, 0), (1.0, 4000)])
def test_the_ends_are_none_and_all(fraction: float, num_test: int) -> None:
    assert draw_test(GROUPS, test_fraction=fraction, seed=0).sum() == num_test


def test_a_group_larger_than_test_stays_in_train() -> None:
    large = np.full(1000, GROUPS[0])
    for seed in range(40):
        in_test = draw_test(np.concatenate([large, GROUPS]), test_fraction=0.1, seed=seed)
        assert not in_test[:1000].any()
        assert 0.05 < in_test.mean() < 0.13
