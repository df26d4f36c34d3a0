"""Log-probs of completions against transformers' own forward, and those that sampling counted."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from dpo import SampleConfig, completion_logps, encode_prompts, sample
from tests.dpo.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = [f"Tell me {'a ' * (n % 4)}story {n}." for n in range(20)]
IDS = encode_prompts(PROMPTS, TOKENIZER)


@torch.no_grad()
def plain(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> float:
    ids = torch.tensor([[*prompt, *completion]])
    logps = model(input_ids=ids).logits[0].log_softmax(-1)
    return float(sum(logps[len(prompt) - 1 + n, token] for n, token in enumerate(completion)))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_they_are_those_of_a_plain_forward_and_the_model_is_as_before(attention: str) -> None:
    model = tiny_model(vocabulary=len(TOKENIZER))
    model.set_attn_implementation(attention)
    drawn = np.random.default_rng(0)
    completions = [
        [drawn.integers(3, 20, drawn.integers(1, 30)).tolist() for _ in range(1 + n % 3)]
        for n in range(20)
    ]
    expected = [
        [plain(model, prompt, one) for one in some]
        for prompt, some in zip(IDS, completions, strict=True)
    ]

    found = completion_logps(model, IDS, completions)

    assert list(map(len, found)) == [1 + n % 3 for n in range(20)]
    for some, want in zip(found, expected, strict=True):
        assert some == pytest.approx(want, abs=1e-3)
    assert model.config._attn_implementation == attention
    assert plain(model, IDS[0], completions[0][0]) == expected[0][0]


def test_they_are_those_that_sampling_counted() -> None:
    model: Any = tiny_model(vocabulary=len(TOKENIZER))
    drawn = list(sample(PROMPTS, model, TOKENIZER, SampleConfig(k=2, max_new_tokens=12)))

    found = completion_logps(model, IDS, [[c.ids for c in some] for some in drawn])

    assert [*map(list, found)] == [
        pytest.approx([c.logp for c in some], abs=1e-3) for some in drawn
    ]


@pytest.mark.parametrize(("prompt", "some"), [([], [[1]]), ([1], []), ([1], [[1], []])])
def test_what_has_no_tokens_is_refused(prompt: list[int], some: list[list[int]]) -> None:
    model = tiny_model(vocabulary=len(TOKENIZER))

    with pytest.raises(ValueError, match="at least one token"):
        completion_logps(model, [[1], prompt], [[[1]], some])
