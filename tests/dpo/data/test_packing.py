"""Packs contain every token once, in its place; bin packing loses no row."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo.data.packing import PromptWithCompletions, bin_pack, pack


def row(prompt: list[int], *completions: list[int]) -> PromptWithCompletions:
    arrays = tuple(np.array(ids, np.int32) for ids in completions)
    return PromptWithCompletions(np.array(prompt, np.int32), arrays, (None,) * len(arrays))


def test_a_pack_is_the_drawing_in_its_file() -> None:
    batch = pack([row([1, 2, 3, 4], [5, 6, 7], [8, 9]), row([10, 11], [12], [13, 14, 15])])

    assert batch.input_ids_T.tolist() == list(range(1, 16))
    assert batch.position_ids_T.tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 5, 0, 1, 2, 2, 3, 4]
    assert batch.logit_index_N.tolist() == [3, 4, 5, 3, 7, 10, 10, 12, 13]
    assert batch.targets_N.tolist() == [5, 6, 7, 8, 9, 12, 13, 14, 15]
    assert batch.completion_id_N.tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3]
    assert batch.lengths().tolist() == [3, 2, 1, 3]


def test_four_completions_share_one_prompt() -> None:
    batch = pack([row([1, 2], [3], [4], [5], [6, 7])])

    assert batch.position_ids_T.tolist() == [0, 1, 2, 2, 2, 2, 3]
    assert batch.logit_index_N.tolist() == [1, 1, 1, 1, 5]


def test_masked_tokens_do_not_count() -> None:
    masked = PromptWithCompletions(
        np.array([1], np.int32),
        (np.array([2, 3, 4], np.int32), np.array([5], np.int32)),
        (np.array([True, False, True]), None),
    )
    batch = pack([masked])

    assert batch.sums(torch.tensor([-1.0, -10.0, -2.0, -4.0])).tolist() == [-3.0, -4.0]
    assert batch.lengths().tolist() == [2, 1]


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=60),
    st.integers(1, 512),
    st.integers(1, 4),
)
def test_bin_packing_keeps_every_row_once_and_the_budget(
    sizes: list[int], budget: int, ranks: int
) -> None:
    shares = bin_pack(sizes, budget=budget, ranks=ranks)
    packs = [rows for share in shares for rows in share]

    assert sorted(row for rows in packs for row in rows) == list(range(len(sizes)))
    assert all(len(rows) == 1 or sum(sizes[row] for row in rows) <= budget for rows in packs)
    assert len(shares) == ranks
    assert max(map(len, shares)) == -(-len(packs) // ranks)
