"""Score and sequence KL of a policy on fresh samples of held-out prompts."""

import statistics
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from dpo import (
    SampleConfig,
    completion_logps,
    encode_prompts,
    load_model,
    load_scorer,
    load_tokenizer,
    sample,
    score_completions,
)


class Measured(BaseModel):
    """Mean score of a policy's own completions, and how far they are from the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    score: float | None
    """Mean score of the samples; null without a scorer."""
    score_se: float | None
    """Standard error over the prompts."""
    kl: float
    """KL(policy ‖ reference) of a whole completion, in nats: the mean log-ratio of the samples."""
    kl_se: float
    num_samples: int
    mean_tokens: float
    share_ended: float
    """Share of completions that the model ended itself, before the limit of tokens."""


class Evaluator:
    """The reference and the held-out prompts, loaded once for all policies."""

    def __init__(
        self,
        reference: str,
        scorer: str | None,
        prompts: Sequence[str | list[dict[str, Any]]],
        config: SampleConfig,
    ) -> None:
        self.prompts, self.config, self.name = list(prompts), config, str(scorer)
        self.scorer = None if scorer is None else load_scorer(scorer)
        self.tokenizer: Any = load_tokenizer(reference)
        self.ref = load_model(reference)
        verbatim = config.mode == "verbatim"
        self.ids = encode_prompts(self.prompts, self.tokenizer, raw=verbatim)

    def measure(self, model: str) -> Measured:
        """Return the numbers of a policy's samples; at temperature 1 `kl` estimates the KL."""
        policy = load_model(model)
        drawn = list(sample(self.prompts, policy, self.tokenizer, self.config))
        ref_logps = completion_logps(self.ref, self.ids, [[c.ids for c in some] for some in drawn])
        ratios = [
            [c.logp - ref_logp for c, ref_logp in zip(some, found, strict=True)]
            for some, found in zip(drawn, ref_logps, strict=True)
        ]
        kl, kl_se = mean_and_error(ratios)
        texts = [[c.text for c in some] for some in drawn]
        score, score_se = self._scores(texts)
        completions = [c for some in drawn for c in some]
        return Measured(
            score=score,
            score_se=score_se,
            kl=kl,
            kl_se=kl_se,
            num_samples=len(completions),
            mean_tokens=statistics.mean(len(c.ids) for c in completions),
            share_ended=statistics.mean(c.ended for c in completions),
        )

    def _scores(self, texts: list[list[str]]) -> tuple[float | None, float | None]:
        if self.scorer is None:
            return None, None
        return mean_and_error(
            [
                score_completions(self.scorer, self.name, prompt, some)
                for prompt, some in zip(self.prompts, texts, strict=True)
            ]
        )


def mean_and_error(rows: list[list[float]]) -> tuple[float, float]:
    """Return the mean, and its standard error over the rows, whose values belong together."""
    means = [statistics.mean(row) for row in rows]
    return statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5
