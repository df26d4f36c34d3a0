"""Draws of single tokens, and completions against transformers' own forward and generate."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo.sampling.decode import Prompt, Sampled, sample_batch, uniforms
from dpo.sampling.draw import BLOCK, NUCLEUS, Sampling, draw
from dpo.sampling.readers import ROOM
from tests.dpo.tiny import tiny_model

MODEL = tiny_model().double()  # rounding must not move a draw over a token's border
STOP = frozenset({1})
IDS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17]]


def sampled(
    ids: list[list[int]], *, k: int = 3, seed: int = 0, **how: float
) -> list[list[Sampled]]:
    sampling = Sampling(**{"max_new_tokens": 24, **how})  # type: ignore[arg-type]
    prompts = [
        Prompt(row, uniforms(seed, at, k, sampling.max_new_tokens)) for at, row in enumerate(ids)
    ]
    return sample_batch(MODEL, prompts, sampling, STOP)


def test_even_uniforms_draw_each_token_as_often_as_its_probability() -> None:
    probs = torch.tensor([0.5, 0.25, 0.125, 0.125])
    places = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000

    found, _ = draw(probs.log().expand(1000, 4), places, Sampling())

    assert torch.bincount(found).tolist() == [500, 250, 125, 125]


@given(st.integers(0, 2**32), st.floats(0.05, 0.999), st.sampled_from([3, 40, 4 * NUCLEUS]))
def test_top_p_draws_from_the_smallest_set_that_has_the_mass(
    seed: int, top_p: float, size: int
) -> None:
    logps = torch.randn(size, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    order = logps.exp().sort(descending=True)
    needed = int((order.values.double().cumsum(0) < top_p - 1e-6).sum()) + 1
    places = (torch.arange(200, dtype=torch.float64) + 0.5) / 200

    found, _ = draw(logps.expand(200, size), places, Sampling(top_p=top_p))

    assert set(found.tolist()) <= set(order.indices[: needed + 1].tolist())
    assert order.indices[0] in found or needed > 50


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 7, BLOCK, BLOCK + 1, 5 * BLOCK - 1]),
    st.sampled_from([0.3, 1.0, 2.0]),
)
def test_a_draw_is_the_inverse_cdf_in_the_order_of_the_vocabulary(
    seed: int, size: int, temperature: float
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=4, size=(20, size))
    logits[:, random.random(size) < 0.3] = -np.inf
    logits[:, random.integers(size)] = 1.0
    places = np.concatenate((random.random(18), [0.0, np.nextafter(1, 0)]))

    tokens, logps = draw(torch.tensor(logits), torch.tensor(places), Sampling(temperature))

    weights = np.exp(logits / temperature)
    cdf = weights.cumsum(-1) / weights.sum(-1, keepdims=True)
    for row, token in enumerate(tokens.tolist()):
        assert cdf[row, token] - cdf[row, token - 1] * (token > 0) > 0
        assert cdf[row, token] >= places[row] - 1e-12
        assert token == 0 or cdf[row, token - 1] <= places[row] + 1e-12
    plain = torch.tensor(logits).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    assert torch.allclose(logps, plain)


def test_a_lower_temperature_draws_the_likeliest_more_often() -> None:
    logps = torch.tensor([0.6, 0.4]).log().expand(100, 2)
    places = (torch.arange(100, dtype=torch.float64) + 0.5) / 100

    counts = [int((draw(logps, places, Sampling(t))[0] == 0).sum()) for t in (0.25, 1.0, 4.0)]

    assert counts == sorted(counts, reverse=True)
    assert counts[1] == 60


def test_uniforms_are_a_function_of_seed_row_and_completion() -> None:
    first = uniforms(3, 5, 2, 8)

    assert np.array_equal(uniforms(3, 5, 1, 4), first[:1, :4])
    assert len({tuple(k) for s in (0, 1) for r in (0, 1) for k in uniforms(s, r, 2, 4)}) == 8


def test_many_draws_have_the_models_own_distribution() -> None:
    how, count = Sampling(max_new_tokens=2), 4000
    prompt = Prompt(IDS[0], uniforms(0, 0, count, 2))
    with torch.no_grad():
        first = MODEL(torch.tensor([IDS[0]])).logits[0, -1].softmax(-1)
        texts = torch.tensor([[*IDS[0], token] for token in range(len(first))])
        expected = count * first[:, None] * MODEL(texts).logits[:, -1].softmax(-1)

    (drawn,) = sample_batch(MODEL, [prompt], how, frozenset())

    found = torch.zeros_like(expected)
    for completion in drawn:
        found[tuple(completion.ids)] += 1
    likely = expected > 2
    errors = (found[likely] - expected[likely]) / expected[likely].sqrt()
    assert float(expected[likely].sum()) > count / 4
    assert float(errors.square().mean()) == pytest.approx(1, abs=0.2)
    assert float(errors.abs().max()) < 5


def test_greedy_completions_are_those_of_generate() -> None:
    count = ROOM + 20  # so that the cache grows
    found = sampled(IDS, k=1, temperature=0.0, max_new_tokens=count)

    for ids, (completion,) in zip(IDS, found, strict=True):
        said = MODEL.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
        assert completion.ids == said[0, len(ids) :].tolist()


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7, "top_p": 0.9}])
def test_logps_are_those_of_a_plain_forward_at_temperature_1(how: dict[str, float]) -> None:
    for ids, completions in zip(IDS, sampled(IDS, **how), strict=True):
        for completion in completions:
            logits = MODEL(torch.tensor([ids + completion.ids])).logits[0, len(ids) - 1 : -1]
            plain = logits.log_softmax(-1).gather(1, torch.tensor(completion.ids)[:, None]).sum()
            assert completion.logp == pytest.approx(plain.item(), abs=1e-4)


def test_the_rest_of_the_batch_changes_no_completion() -> None:
    together = sampled(IDS)
    alone = [_alone(at, ids) for at, ids in enumerate(IDS)]

    assert [[c.ids for c in row] for row in together] == [[c.ids for c in row] for row in alone]


def test_a_common_beginning_changes_no_completion() -> None:
    beginning = list(range(20, 31))
    ids = [beginning + rest for rest in (*IDS, [8], [5, 6])]

    together = sampled(ids)

    assert [[c.ids for c in row] for row in together] == [
        [c.ids for c in _alone(at, row)] for at, row in enumerate(ids)
    ]


def _alone(row: int, ids: list[int]) -> list[Sampled]:
    prompt = Prompt(ids, uniforms(0, row, 3, 24))
    return sample_batch(MODEL, [prompt], Sampling(max_new_tokens=24), STOP)[0]


def test_a_completion_ends_at_its_end_token_or_at_the_limit() -> None:
    found = [c for row in sampled(IDS, k=40) for c in row]

    assert {c.ended for c in found} == {True, False}
    for completion in found:
        assert STOP.isdisjoint(completion.ids[:-1])
        assert completion.ended == (completion.ids[-1] in STOP)
        assert completion.ended or len(completion.ids) == 24
