"""Reward and sequence KL of a policy on fresh samples of held-out prompts."""

import statistics
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel

from dpo import SampleConfig, encode_prompts, load_model, load_tokenizer, sample
from pipelines.paper.sentiment.settings import Settings, find_scorer
from pipelines.quickstart.evaluate import plain_logps

SEED = 1
BATCH = 96


class Point(BaseModel):
    """One policy on the plane of reward and KL."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: str
    setting: str
    """β or α; empty for a method without."""
    seed: int
    step: int
    reward: float
    """Mean score of the samples, 0 to 1."""
    reward_se: float
    """Standard error over the prompts."""
    kl: float
    """KL(policy ‖ reference) of a whole completion, in nats: the mean log-ratio of the samples."""
    kl_se: float
    num_samples: int
    mean_tokens: float
    share_ended: float


class Evaluator:
    """The reference and the held-out prompts, loaded once for all policies."""

    def __init__(self, settings: Settings, reference: str, prompts: Sequence[str]) -> None:
        self.prompts = list(prompts)
        self.tokenizer: Any = load_tokenizer(reference)
        self.ref, self.scorer = load_model(reference), find_scorer(settings.scorer)
        self.ids = encode_prompts(self.prompts, self.tokenizer, raw=True)
        self.config = SampleConfig(
            k=settings.eval_k, raw=True, max_new_tokens=settings.max_new_tokens, batch_size=BATCH,
            seed=SEED,
        )  # fmt: skip

    def measure(self, model: str) -> dict[str, float]:
        """Return the numbers of a policy's samples at temperature 1, as in a `Point`."""
        policy: PreTrainedModel = load_model(model)
        drawn = list(sample(self.prompts, policy, self.tokenizer, self.config))
        pairs = [(ids, c.ids) for ids, some in zip(self.ids, drawn, strict=True) for c in some]
        ref_logps = iter(plain_logps(self.ref, pairs))
        ratios = [[c.logp - next(ref_logps) for c in some] for some in drawn]
        scores = [
            list(self.scorer(prompts=[prompt] * len(some), completions=[c.text for c in some]))
            for prompt, some in zip(self.prompts, drawn, strict=True)
        ]
        completions = [c for some in drawn for c in some]
        reward, kl = _mean_and_error(scores), _mean_and_error(ratios)
        return {
            "reward": reward[0],
            "reward_se": reward[1],
            "kl": kl[0],
            "kl_se": kl[1],
            "num_samples": len(completions),
            "mean_tokens": statistics.mean(len(c.ids) for c in completions),
            "share_ended": statistics.mean(c.ended for c in completions),
        }


def _mean_and_error(rows: list[list[float]]) -> tuple[float, float]:
    """Return the mean, and its standard error over the rows, whose values belong together."""
    means = [statistics.mean(row) for row in rows]
    return statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5
