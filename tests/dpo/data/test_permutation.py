"""Order of pairs: a pure function, in which each epoch is a permutation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpo.data.sampler import permute, step_pairs

sizes = st.integers(1, 3000)
seeds = st.integers(0, 2**31)


@given(sizes, seeds)
def test_every_epoch_is_a_permutation(size: int, seed: int) -> None:
    order = permute(np.arange(size), size, key=str(seed))

    assert sorted(order.tolist()) == list(range(size))


@given(st.integers(2, 200), seeds, st.integers(1, 64))
def test_steps_cut_one_sequence(size: int, seed: int, batch: int) -> None:
    """Check that two steps of B are one step of 2B: the order is independent of the batch."""
    wide = step_pairs(size, seed=seed, step=3, batch=2 * batch)
    narrow = [step_pairs(size, seed=seed, step=step, batch=batch) for step in (5, 6)]

    assert wide.tolist() == np.concatenate(narrow).tolist()


def test_no_pair_is_twice_or_missing_in_an_epoch() -> None:
    steps = [step_pairs(10, seed=3, step=step, batch=4) for step in range(1, 6)]
    epochs = np.concatenate(steps).reshape(2, 10)

    assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(10))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


def test_a_step_far_out_costs_no_list() -> None:
    pairs = step_pairs(10**12, seed=0, step=10**9, batch=3)

    assert len(set(pairs.tolist())) == 3
    assert pairs.max() < 10**12


def test_orders_of_two_seeds_agree_no_more_than_chance() -> None:
    size = 5000
    first, second = (permute(np.arange(size), size, key=key) for key in ("0/0", "1/0"))

    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.05)
    assert np.corrcoef(first, np.arange(size))[0, 1] == pytest.approx(0, abs=0.05)
    assert (first == second).sum() < 10
