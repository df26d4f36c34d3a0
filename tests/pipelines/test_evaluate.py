"""The evaluation's KL of a policy from itself, on a tiny model."""

import pytest

from pipelines.quickstart.evaluate import measure_kl
from tests.dpo.tiny import tiny_model, tiny_tokenizer

PROMPTS = [f"Tell me {'a ' * (n % 4)}story {n}." for n in range(20)]
TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(vocabulary=len(TOKENIZER))


def test_a_policy_is_at_no_distance_from_itself_and_at_some_from_another() -> None:
    other = tiny_model(vocabulary=len(TOKENIZER), seed=1)

    # sampling one token at a time and scoring a whole row round differently
    assert measure_kl(MODEL, MODEL, TOKENIZER, PROMPTS) == pytest.approx((0.0, 0.0), abs=1e-4)
    kl, kl_se = measure_kl(MODEL, other, TOKENIZER, PROMPTS)
    assert kl > 3 * kl_se > 0
