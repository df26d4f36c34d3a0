"""Points of the frontier: reward and sequence KL of a policy."""

from pydantic import BaseModel, ConfigDict

from dpo import SampleConfig
from pipelines.fresh_samples import Measured
from pipelines.paper.sentiment.settings import Settings

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


def sampling(settings: Settings) -> SampleConfig:
    """Return how policies are sampled: at temperature 1, so that log-ratios estimate the KL."""
    return SampleConfig(
        k=settings.eval_k, raw=True, max_new_tokens=settings.max_new_tokens, batch_size=BATCH,
        seed=SEED,
    )  # fmt: skip


def numbers(measured: Measured) -> dict[str, float]:
    """Return the numbers of a point, whose scores are rewards."""
    found = measured.model_dump()
    return {"reward": found.pop("score"), "reward_se": found.pop("score_se"), **found}
