"""The evaluation's log-probs, and its KL of a policy from itself, on a tiny model."""

import pytest

from dpo import encode_prompts
from dpo.sampling.sample import SampleConfig, sample_completions
from pipelines.quickstart.evaluate import measure_kl, plain_logps
from tests.dpo.tiny import tiny_model, tiny_tokenizer

PROMPTS = [f"Tell me {'a ' * (n % 4)}story {n}." for n in range(20)]
TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(vocabulary=len(TOKENIZER))


def test_plain_logps_are_those_that_sampling_counted() -> None:
    config = SampleConfig(k=1, max_new_tokens=12)
    sampled = [c for (c,) in sample_completions(PROMPTS, MODEL, TOKENIZER, config)]
    rows = [
        (encode_prompts([prompt], TOKENIZER)[0], completion.ids)
        for prompt, completion in zip(PROMPTS, sampled, strict=True)
    ]

    assert len({len(prompt) + len(ids) for prompt, ids in rows}) > 3
    assert plain_logps(MODEL, rows) == pytest.approx([c.logp for c in sampled], abs=1e-3)


def test_a_policy_is_at_no_distance_from_itself_and_at_some_from_another() -> None:
    other = tiny_model(vocabulary=len(TOKENIZER), seed=1)

    # sampling one token at a time and scoring a whole row round differently
    assert measure_kl(MODEL, MODEL, TOKENIZER, PROMPTS) == pytest.approx((0.0, 0.0), abs=1e-4)
    kl, kl_se = measure_kl(MODEL, other, TOKENIZER, PROMPTS)
    assert kl > 3 * kl_se > 0
