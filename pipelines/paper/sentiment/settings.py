"""Settings of the sentiment experiment, and the runs that follow from them."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

HERE = Path(__file__).parent


class Settings(BaseModel):
    """Sizes and methods of one experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """Model that is fine-tuned on reviews first."""
    out: Path
    scorer: str
    """Ground-truth reward of a completion, `module:function`."""
    max_new_tokens: PositiveInt
    num_prompts: PositiveInt
    k: PositiveInt
    sft: list[str]
    """Changes of train.yaml for supervised fine-tuning."""
    train: list[str]
    """Changes of train.yaml for all methods."""
    points: list[PositiveInt]
    """Steps whose policies are evaluated."""
    seeds: list[int]
    dpo: list[PositiveFloat]
    unlikelihood: list[NonNegativeFloat]
    sft_on_chosen: bool
    best_of: list[PositiveInt]
    rloo: list[NonNegativeFloat]
    rloo_learning_rate: PositiveFloat
    held_out: PositiveInt
    eval_k: PositiveInt

    @model_validator(mode="after")
    def _points_are_saved(self) -> "Settings":
        first, last = self.points[0], self.points[-1]
        if any(point % first for point in self.points) or f"steps={last}" not in self.train:
            raise ValueError("points are multiples of the first; the last is the steps of `train`")
        return self


class Run(NamedTuple):
    """One training run: its method, what is varied, and its seed."""

    method: str
    setting: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.method, self.setting, f"seed{self.seed}") if part)


def find_scorer(name: str) -> Callable[..., Sequence[float]]:
    """Return the function `module:function`."""
    module, _, function = name.partition(":")
    found: Callable[..., Sequence[float]] = getattr(import_module(module), function)
    return found


def read(path: Path) -> Settings:
    return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def runs(settings: Settings) -> Iterator[Run]:
    """Yield the runs of dpo-train; all of the first seed come first."""
    for seed in settings.seeds:
        for beta in settings.dpo:
            yield Run("dpo", f"{beta:g}", (f"loss.beta={beta}",), seed)
        for alpha in settings.unlikelihood:
            loss = ("loss.name=unlikelihood", "loss.beta=null", f"loss.alpha={alpha}")
            yield Run("unlikelihood", f"{alpha:g}", loss, seed)
        if settings.sft_on_chosen:
            yield Run("preferred-ft", "", ("loss.name=sft", "loss.beta=null"), seed)
