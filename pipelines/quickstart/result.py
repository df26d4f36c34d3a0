"""Measurements of the quickstart: the model of result.json and schemas/result.schema.json.

python -m pipelines.quickstart.result schemas/result.schema.json
"""

import json
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Samples(Part):
    """Fresh completions of the held-out prompts by one model."""

    sentiment: float
    """Mean score, 0 to 1; 0.5 is neutral."""
    sentiment_se: NonNegativeFloat
    """Standard error of that mean."""
    share_ended: float
    """Share of completions that the model ended itself, before the limit of tokens."""
    mean_tokens: float
    ref_logp_per_token: float
    """Mean log-prob per token of the completions under the reference, in nats: their fluency."""
    distinct_bigrams: float
    """Distinct pairs of neighboring words, as a share of all pairs."""


class Example(Part):
    """One held-out prompt with the completions of both models."""

    beginning: str
    before: str
    after: str
    before_score: float
    after_score: float


class Result(Part):
    """Outcome of one run of the quickstart."""

    first_loss: float
    """Loss of the first step: ln 2, since policy and reference are still equal."""
    last_loss: float
    """Mean loss of the last ten steps."""
    reward_accuracy: float
    """Share of held-out pairs whose chosen side has the higher reward after training."""
    reward_accuracy_before: float
    """The same at the first step. Ties count half, so it is 0.5 if policy and reference agree."""
    reward_margin: float
    """Mean reward of chosen minus rejected on held-out pairs, after training."""
    sentiment_before: float
    sentiment_after: float
    sentiment_difference: float
    kl: float
    """KL(policy || reference) per completion, in nats, on samples at temperature 1."""
    kl_se: NonNegativeFloat
    num_samples: PositiveInt
    """Completions of each model behind the sentiments; the KL uses separate samples."""
    num_prompts: PositiveInt
    before: Samples
    after: Samples
    examples: list[Example]
    steps: PositiveInt
    seconds: dict[str, float]
    """Wall time of each stage."""
    versions: dict[str, str]


def schema() -> str:
    return json.dumps(Result.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
