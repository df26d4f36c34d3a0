"""Settings of what a run leaves, which of its steps, when it ends early, and its samples."""

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class SaveConfig(_Model):
    """What a run leaves: a model that loads with transformers, and its adapter."""

    adapter: bool = True
    """Save the adapter of `lora` in `out`/adapter, as peft loads it."""
    merged: bool = True
    """Save a whole model in `out`/model, with the adapter of `lora` merged."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype of the saved model. Null: that of each tensor in the base checkpoint."""
    max_shard_size: Annotated[str, Field(pattern=r"^[1-9]\d*(KB|MB|GB|TB)$")] = "5GB"
    """Size of a weights file above which several are written."""


LOWER = ("loss", "kl_estimate", "rewards/rejected", "logps/rejected", "logratios/rejected")
"""Metrics of an evaluation that are better if lower."""
HIGHER = (
    *("rewards/accuracies", "rewards/margins", "rewards/chosen"),
    *("logps/chosen", "logratios/chosen"),
)
"""Metrics that are better if higher; accuracies also of one source."""


def _of_evaluation(metric: str) -> str:
    """Return the name of a metric, such as `eval/loss`, if evaluations may have it."""
    if not metric.startswith("eval/") or _name_of(metric) is None:
        known = ", ".join(f"eval/{known}" for known in (*LOWER, *HIGHER))
        message = f"{metric!r} is not a metric of an evaluation: {known}"
        raise ValueError(message)
    return metric


def _name_of(metric: str) -> str | None:
    """Return the name of a metric without its split and source; None if it is not known.

    >>> [_name_of(name) for name in ("eval/loss", "eval/other/loss", "eval/lost")]
    ['loss', 'loss', None]
    """
    rest = metric.removeprefix("eval/")
    for name in (rest, rest.partition("/")[2]):
        if name.startswith("rewards/accuracies/"):
            return "rewards/accuracies"
        if name in (*LOWER, *HIGHER):
            return name
    return None


def grows_better(metric: str) -> bool:
    """Return whether a metric of an evaluation, such as `eval/loss`, is better if higher.

    >>> grows_better("eval/loss"), grows_better("eval/rewards/accuracies/hh.jsonl")
    (False, True)
    """
    return _name_of(metric) in HIGHER


EvalMetric = Annotated[str, AfterValidator(_of_evaluation)]
"""A metric of an evaluation; its name decides whether lower or higher values are better."""


class EarlyStopping(_Model):
    """End a run whose evaluations no longer improve."""

    patience: PositiveInt
    """Evaluations in a row without improvement after which the run ends."""
    metric: EvalMetric = "eval/loss"
    """Metric of the evaluations; its name decides whether lower or higher is better."""
    min_delta: NonNegativeFloat = 0.0
    """Smallest change that counts as an improvement."""


class SampleSettings(_Model):
    """Samples of fixed prompts at each evaluation; a number is the number of prompts."""

    prompts: PositiveInt
    """Prompts to complete: the first distinct ones of the split."""
    max_new_tokens: PositiveInt = 64
    """Maximum number of tokens of a completion."""
    temperature: NonNegativeFloat = 0.0
    """0 is greedy decoding; else draws by `seed`, the same random numbers at each evaluation."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: mass of the likeliest tokens to keep; only above temperature 0."""

    @model_validator(mode="after")
    def _draws(self) -> "SampleSettings":
        if self.top_p < 1 and self.temperature == 0:
            message = "top_p is not used at temperature 0"
            raise ValueError(message)
        return self
