"""Settings of the sentiment experiment, and the runs that follow from them."""

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from pydantic import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipelines.commands import RecipeError, read_config
from prefdata.config import AnyPath
from prefdata.settings import StrictModel

HERE = Path(__file__).parent


class Settings(StrictModel):
    """Sizes and methods of one experiment."""

    model: str
    """Model that is fine-tuned on reviews first."""
    out: AnyPath
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
    """Seeds of DPO's runs."""
    other_seeds: list[int]
    """Seeds of the other methods' runs."""
    dpo: list[PositiveFloat]
    unlikelihood: list[NonNegativeFloat]
    sft_on_chosen: bool
    best_of: list[PositiveInt]
    rloo: list[NonNegativeFloat]
    rloo_learning_rate: PositiveFloat
    ppo: list[NonNegativeFloat]
    ppo_learning_rate: PositiveFloat
    ppo_batches: PositiveInt
    """Batches of completions that PPO samples; each serves four optimizer steps, TRL's default."""
    held_out: PositiveInt
    eval_k: PositiveInt

    @property
    def pairs_per_step(self) -> int:
        return int(dict(word.split("=", 1) for word in self.train)["global_batch_size"])

    @model_validator(mode="after")
    def _points_are_saved(self) -> "Settings":
        first, last = self.points[0], self.points[-1]
        if any(point % first for point in self.points) or f"steps={last}" not in self.train:
            raise ValueError("points are multiples of the first; the last is the steps of `train`")
        return self


FREE = {"out", "seeds", "other_seeds", "dpo", "unlikelihood", "sft_on_chosen", "rloo", "ppo"}
"""Keys that may change between two starts: they name runs, or the place of all of them."""


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
    """Return the settings in a user's YAML file, or in the JSON that `keep` wrote."""
    if path.suffix == ".json":  # 3e-6 is a number there, and a text in YAML
        return Settings.model_validate_json(path.read_bytes())
    return read_config(Settings, path, "pipelines/paper/sentiment/settings.py")


def keep(settings: Settings) -> None:
    """Write the settings into `out`; raise RecipeError if what is there was made by others."""
    path, now = settings.out / "settings.json", settings.model_dump(mode="json")
    then = json.loads(path.read_bytes()) if path.exists() else now
    for key in sorted(now.keys() - FREE):
        if key in then and then[key] != now[key]:  # a new key decided nothing of what is there
            problem = f"{key} was {then[key]}, and is {now[key]}"
            raise RecipeError(path, problem, "set it back, or name another `out`")
    settings.out.mkdir(parents=True, exist_ok=True)
    path.write_text(settings.model_dump_json(indent=2) + "\n")


def runs(settings: Settings) -> Iterator[Run]:
    """Yield the runs of dpo-train; all of the first seed come first."""
    for seed in dict.fromkeys([*settings.seeds, *settings.other_seeds]):
        if seed in settings.seeds:
            for beta in settings.dpo:
                yield Run("dpo", f"{beta:g}", (f"loss.beta={beta}",), seed)
        if seed in settings.other_seeds:
            for alpha in settings.unlikelihood:
                loss = ("loss.name=unlikelihood", "loss.beta=null", f"loss.alpha={alpha}")
                yield Run("unlikelihood", f"{alpha:g}", loss, seed)
            if settings.sft_on_chosen:
                yield Run("preferred-ft", "", ("loss.name=sft", "loss.beta=null"), seed)
