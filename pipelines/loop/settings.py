"""Settings of the loop: one YAML file, checked whole before the first command runs.

python -m pipelines.loop.settings schemas/loop-config.schema.json
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from dpo.config import TrainConfig
from dpo.config_file import parse_config
from pipelines.commands import RecipeError, read_config
from prefdata.config import AnyPath, make_config
from prefdata.errors import CodedError
from prefdata.records.sources import MOST_EPOCHS
from prefdata.settings import StrictModel, settle_words

SCHEMA = "schemas/loop-config.schema.json"
Stage = Literal["sample", "label", "build", "reference", "train", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
PLACES = {"inputs", "layout", "tokenizer", "model", "data", "out", "reference"}
"""Keys of builds and runs that the loop sets."""
WHERE = ("url", "api_key_env", "concurrency", "rate", "retries", "timeout")
"""Keys of a server that may change at any time: where it is and how fast it is asked."""


class ServerSettings(StrictModel):
    """An OpenAI-compatible server."""

    url: str
    """Its address, such as http://localhost:8000."""
    model: str | None = None
    """Its model. Null: the only one that it lists."""
    api_key_env: str | None = None
    """Environment variable that holds the server's key. Null: OPENAI_API_KEY, if it is set."""
    concurrency: PositiveInt | None = None
    """Requests in flight at once. Null: 16."""
    rate: PositiveFloat | None = None
    """Requests per minute. Null: no limit."""
    retries: NonNegativeInt | None = None
    """Further tries of a request that fails. Null: 8."""
    timeout: PositiveFloat | None = None
    """Seconds for one request. Null: 300."""

    def words(self) -> list[str]:
        """Return the options of a command that asks this server."""
        names = {"url": "--server", "model": "--server-model"}
        given = self.model_dump(exclude_none=True).items()
        options = ((names.get(name, f"--{name.replace('_', '-')}"), value) for name, value in given)
        return [word for name, value in options for word in (name, str(value))]


class SampleSettings(StrictModel):
    """Completions of each round's prompts, by `dpo-sample`."""

    k: Annotated[int, Field(ge=2)] = 4
    """Completions of each prompt."""
    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: mass to keep."""
    server: ServerSettings | None = None
    """A server that samples in each round, such as a fixed larger model. Null: the round's own
    model, that of the round before."""


class LabelSettings(StrictModel):
    """Ranks of the completions, by `dpo-judge`; give `scorer` or `server`."""

    scorer: str | None = None
    """`module:function`, or `reward-model:NAME`."""
    server: ServerSettings | None = None
    """A server whose model judges."""
    template: str | None = None
    """Question for the server's model: pairwise, rating or ranking, or a YAML file of yours. Null:
    pairwise."""
    max_new_tokens: PositiveInt | None = None
    """Longest reply of the server's model. Null: 1,024."""
    only_ended: bool = True
    """Leave out completions that the limit of tokens cut. A policy that is trained on cut ones
    learns not to end."""

    @model_validator(mode="after")
    def _has_one_judge(self) -> "LabelSettings":
        if (self.scorer is None) == (self.server is None):
            raise ValueError("give one of scorer and server")
        for name in ("template", "max_new_tokens"):
            if self.server is None and getattr(self, name) is not None:
                message = f"{name} has no effect without server"
                raise ValueError(message)
        return self


class EvaluateSettings(StrictModel):
    """Fresh completions of held-out prompts, at temperature 1, after each round."""

    k: PositiveInt = 1
    """Completions of each prompt."""
    num_prompts: Annotated[int, Field(ge=2)] | None = None
    """Number of held-out prompts, evenly spaced in the file. Null: all."""
    scorer: str | None = None
    """Scorer of the completions. Null: that of `label`; without one, no scores."""


class LoopConfig(StrictModel):
    """One loop: N rounds of sample, label, build, reference, train and evaluate."""

    model: str
    """Model of the first round: the directory of a checkpoint, or a hub name."""
    prompts: AnyPath
    """JSON Lines of prompts, as dpo-sample reads them."""
    held_out: AnyPath
    """JSON Lines of prompts for the evaluation."""
    out: AnyPath
    """Directory of the rounds and of loop.json."""
    rounds: PositiveInt
    """Number of rounds; it may grow later."""
    prompts_per_round: PositiveInt | None = None
    """Prompts of one round: the next ones of a seeded order, which starts again at its end. Null:
    all prompts in each round."""
    text: Literal["chat", "verbatim"] = "chat"
    """Prompts that are strings are a user's turn, or text that the model continues."""
    max_new_tokens: PositiveInt = 64
    """Longest completion, in training and evaluation."""
    batch_size: PositiveInt = 64
    """Completions that a model in process decodes at once."""
    seed: NonNegativeInt = 0
    """Seed of the prompts' order and of sampling; round n samples with seed + n."""
    sample: SampleSettings = SampleSettings()
    label: LabelSettings
    build: dict[str, Any] = {}
    """Keys of a build's config (docs/config-build.md), but for inputs, layout, tokenizer and out.
    All pairs are train without `test_fraction`."""
    earlier_weights: list[Annotated[float, Field(ge=0, le=MOST_EPOCHS)]] = []
    """Weights of the pairs of the round before, of the one before that, and so on: 0.5 mixes in a
    seeded half of them (docs/config-build.md, mixtures). Rounds beyond the list are left out."""
    reference: Literal["previous", "first", "none"] = "previous"
    """Reference of a round: the model of the round before, from which it also starts, the first
    model, or none, for losses without a reference."""
    train: dict[str, Any] = {}
    """Keys of a training config (docs/config-train.md), but for model, data, out and reference.
    Nothing is evaluated without `eval_split`."""
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        return settle_words(values, cls)

    @field_validator("build", "train")
    @classmethod
    def _sets_no_places(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(value.keys() & PLACES):
            message = f"{taken[0]} is set by the loop itself"
            raise ValueError(message)
        return value

    @property
    def scorer(self) -> str | None:
        """Return the scorer of the evaluation."""
        return self.evaluate.scorer or self.label.scorer

    @property
    def train_config(self) -> TrainConfig:
        """Return the settings of the runs, with stand-ins for places."""
        return parse_config(self.train_values(self.model, Path("data"), Path("out")), place="train")

    def build_values(self, sources: list[dict[str, Any]], out: Path) -> dict[str, Any]:
        """Return the config of one round's build; without `test_fraction` all pairs are train."""
        places = {"inputs": sources, "layout": "judged", "tokenizer": self.model, "out": str(out)}
        return {"test_fraction": 0.0, **self.build, **places}

    def train_values(self, model: str, data: Path, out: Path) -> dict[str, Any]:
        """Return the config of one round's run; `eval_split` is null unless it is set."""
        places = {"model": model, "data": str(data), "out": str(out)}
        reference: dict[str, Any] | None = None if self.reference == "none" else {}
        if self.reference == "first" and model != self.model:
            reference = {"model": self.model}
        return {"eval_split": None, **self.train, **places, "reference": reference}


KEYS = {
    "sample": ("prompts", "prompts_per_round", "sample"),
    "label": ("label",),
    "build": ("build", "earlier_weights"),
    "reference": ("reference",),
    "train": ("train",),
    "evaluate": ("held_out", "evaluate"),
}
"""Keys that decide what a stage makes; all others but `out` and `rounds` decide every stage."""


def key_of_stage(name: str) -> str | None:
    """Return the stage that a key decides; None if it decides all of them."""
    top = name.split(".")[0]
    return next((stage for stage, keys in KEYS.items() if top in keys), None)


def changed_keys(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield the dotted names of keys with different values, but for those of places and speed."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            where = f"{name}.{key}" if name else key
            yield from changed_keys(before.get(key), now.get(key), where)
    elif before != now and not _may_change(name):
        yield name


def _may_change(name: str) -> bool:
    parent, _, key = name.rpartition(".")
    return name in ("out", "rounds") or (parent.endswith(".server") and key in WHERE)


def read(path: Path) -> LoopConfig:
    """Return the config of a file; those of its builds and runs are checked too."""
    config = read_config(LoopConfig, path, SCHEMA)
    try:
        source = {"path": "verdicts.jsonl"}
        make_config(config.build_values([source], Path("data")), place=f"{path}: build")
        run = config.train_config
    except CodedError as error:
        raise RecipeError(f"{path}: {error.place}", error.problem, error.remedy) from error
    if not run.save.merged:
        problem = "train.save.merged: false leaves no model for the next round"
        raise RecipeError(path, problem, "remove the key: the adapter is saved as well")
    return config


def schema() -> str:
    return json.dumps(LoopConfig.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
