"""Batches of texts: few, with the least padding of all ways to cut the sorted texts."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from bench.tiny_models import config_of, model_of
from dpo.data.packing import PromptWithCompletions, Segment, pack
from dpo.model.heads import body_of
from dpo.model.self_check import make_policy, plain_logps
from dpo.model.unshared import batches, split_texts
from tests.dpo.model.zoo import pairs_of, rows_of

REACH: dict[str, dict[str, Any]] = {"lfm2": {"max_position_embeddings": 1024}}


def least(lengths: list[int], most: int) -> int:
    """Return the padded tokens of the best of all cuts, tried one by one."""
    order = sorted(lengths)
    costs = []
    for cuts in range(min(most, len(order))):
        for places in combinations(range(1, len(order)), cuts):
            ends = [0, *places, len(order)]
            parts = [order[a:b] for a, b in pairwise(ends)]
            costs.append(sum(len(part) * part[-1] for part in parts))
    return min(costs)


@pytest.mark.parametrize("seed", range(40))
def test_batches_have_the_least_padding(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 12, generator.integers(1, 10)).tolist()

    found = batches(lengths, most=4)

    assert sorted(place for some in found for place in some) == list(range(len(lengths)))
    assert len(found) <= 4
    cost = sum(len(some) * max(lengths[place] for place in some) for some in found)
    assert cost == least(lengths, 4)


def test_a_large_pack_has_four_batches_with_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(20, 600, 56).tolist()

    found = batches(lengths)

    padded = sum(len(some) * max(lengths[place] for place in some) for some in found)
    assert len(found) == 4
    assert padded <= 1.25 * sum(lengths)


def test_padding_is_on_the_right() -> None:
    (part,) = split_texts([Segment(2, (1, 3))], [0, 0], passes=1)

    assert part.places_RT.tolist() == [[0, 1, 2, -1, -1], [0, 1, 3, 4, 5]]
    assert part.is_new_RT.tolist() == [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]
    assert part.predicts_n.tolist() == [1, 6, 7, 8]
    assert part.tokens_n.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("family", ["bloom", "lfm2", "mamba2"])
def test_a_pack_of_8192_tokens_is_four_passes_with_the_log_probs_of_plain_ones(family: str) -> None:
    rows = long_rows()
    model = model_of(config_of(family, **REACH.get(family, {})))
    policy, why = make_policy(model, pairs_of([row for row in rows if len(row.prompt) < 40][:8]))
    assert why is not None
    some = rows[:2] + rows[-2:]
    expected = plain_logps(model, some)
    calls: list[tuple[int, ...]] = []
    body_of(model).register_forward_pre_hook(
        lambda _model, _args, inputs: calls.append(tuple(inputs["input_ids"].shape)),
        with_kwargs=True,
    )

    with torch.no_grad():
        found = policy(pack(rows)).logps_N

    assert sum(row.num_tokens for row in rows) >= 8192
    assert len(calls) <= 4
    count = sum(len(completion) for row in some[:2] for completion in row.completions)
    rest = len(expected) - count
    assert (found[:count] - expected[:count]).abs().max() <= 1e-4
    assert (found[-rest:] - expected[-rest:]).abs().max() <= 1e-4


def test_texts_of_a_model_that_chooses_keys_run_one_by_one() -> None:
    """Ties between keys are broken by their places, so that padding changes which are chosen."""
    model = model_of(config_of("hy_v4"))
    rows = rows_of((6, 5, 4), (3, 2, 30), (8, 8, 9), (30, 8, 2))

    policy, why = make_policy(model, pairs_of(rows))

    assert why is not None
    assert policy.passes == 0
    with torch.no_grad():
        gap = policy(pack(rows)).logps_N - plain_logps(model, rows)
    assert gap.abs().max() <= 1e-4


def long_rows() -> list[PromptWithCompletions]:
    """Return rows of 8,192 tokens in all, with lengths as those of a chat."""
    generator = np.random.default_rng(0)
    lengths: list[tuple[int, ...]] = []
    while sum(map(sum, lengths)) < 8192:
        prompt, *others = generator.lognormal(4.0, 0.7, 3).astype(int).clip(2, 300)
        lengths.append((int(prompt), *map(int, others)))
    return rows_of(*lengths)
