"""Settings of a win-rate experiment: one YAML file, checked whole before the first command.

python -m pipelines.paper.win_rates.settings schemas/win-rates-config.schema.json
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from dpo.config_file import read_config as read_run
from pipelines.commands import RecipeError, read_config
from pipelines.loop.settings import ServerSettings
from prefdata.config import AnyPath, make_config
from prefdata.errors import CodedError
from prefdata.settings import StrictModel, read_settings

PAPER = Path(__file__).resolve().parents[1]
SCHEMA = "schemas/win-rates-config.schema.json"
PLACES = {"tokenizer", "out", "chat_template"}
"""Keys of a build that the experiment sets."""
Words = list[str]


class Evaluation(StrictModel):
    """Prompts, and the answers of people that a policy's own are compared with."""

    file: str | None = None
    """JSON Lines, Parquet or CSV. Null: the build's test split and its chosen answers, of prompts
    with one turn."""
    prompt: str = "prompt"
    """Column of the file."""
    reference: str = "reference"
    """Column of the file: the answer to compare with."""
    rows: PositiveInt
    """Maximum number of prompts, evenly spaced."""
    max_words: PositiveInt | None = None
    """Leave out longer prompts, which may not fit the model's context; their number is reported."""


class JudgeSettings(StrictModel):
    """Judge of which answer is better, by `dpo-judge`; give `scorer` or `server`."""

    scorer: str | None = None
    """`module:function`, or `reward-model:NAME`."""
    server: ServerSettings | None = None
    """A server whose model compares the two answers in both orders."""
    template: str = "pairwise"
    """Question for the server's model: pairwise, or a YAML file of yours."""

    @model_validator(mode="after")
    def _has_one_judge(self) -> "JudgeSettings":
        if (self.scorer is None) == (self.server is None):
            raise ValueError("give one of scorer and server")
        return self

    @property
    def decides(self) -> Words:
        """Return the options that decide verdicts: the server may move."""
        if self.server is None:
            return ["--scorer", str(self.scorer)]
        return ["--server-model", str(self.server.model), "--template", self.template]

    @property
    def words(self) -> Words:
        """Return the options of dpo-judge."""
        if self.server is None:
            return ["--scorer", str(self.scorer)]
        return [*self.server.words(), "--template", self.template]


class Base(StrictModel):
    """A model without fine-tuning that sees examples in its prompt."""

    model: str
    examples: NonNegativeInt
    """Training prompts of one turn with their chosen answers, before each prompt."""


class BestOf(StrictModel):
    """The best of N answers of the model that the runs start from."""

    n: Annotated[int, Field(ge=2)]
    scorer: str
    """`module:function`, or `reward-model:NAME`."""


class Size(StrictModel):
    """What `pipelines.paper.win_rates.cost` needs to know."""

    parameters: PositiveFloat
    pairs: PositiveInt
    """Pairs of the train split."""
    prompt_tokens: PositiveFloat
    completion_tokens: PositiveFloat


class Settings(StrictModel):
    """One experiment: what is trained, and what the answers are compared with."""

    task: Literal["tldr", "dialogue"]
    """Directory in pipelines/paper with build.yaml, train.yaml and the template."""
    model: str
    """Model that is fine-tuned on the chosen answers, or, without `sft`, is fine-tuned already."""
    out: AnyPath
    template: AnyPath | None
    """Chat template that models get, in Jinja; a base model has none. Null: their own."""
    build: dict[str, Any] = {}
    """Changes of the task's build.yaml."""
    sft: Words | None
    """Changes of the task's train.yaml for fine-tuning on the chosen answers (Preferred-FT), from
    which all runs start. Null: they start from `model`."""
    train: Words = []
    """Changes of the task's train.yaml for all runs."""
    runs: dict[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], Words]
    """Name of each run, and its further changes."""
    base: Base | None = None
    best_of: BestOf | None = None
    temperatures: Annotated[list[NonNegativeFloat], Field(min_length=1)]
    max_new_tokens: PositiveInt
    batch_size: PositiveInt = 64
    """Answers that are decoded at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of sampling."""
    cut_at: str | None = None
    """Text at which answers are cut, such as the next turn that a base model invents."""
    evaluations: Annotated[dict[str, Evaluation], Field(min_length=1)]
    judge: JudgeSettings
    seed: NonNegativeInt = 0
    size: Size | None = None

    @field_validator("build")
    @classmethod
    def _sets_no_places(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(value.keys() & PLACES):
            message = f"{taken[0]} is set by the experiment"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _names_differ(self) -> "Settings":
        if taken := self.runs.keys() & {self.start_name, "best-of-n", "base"}:
            message = f"runs: {sorted(taken)[0]} is the name of another method"
            raise ValueError(message)
        return self

    @property
    def start_name(self) -> str:
        """Return the method that all runs start from."""
        return "sft" if self.sft is None else "preferred-ft"

    @property
    def train_config(self) -> Path:
        return PAPER / self.task / "train.yaml"

    def build_values(self, tokenizer: str) -> dict[str, Any]:
        """Return the config of the build."""
        path = PAPER / self.task / "build.yaml"
        shipped = read_settings(path, partial(RecipeError, path))
        places = {"tokenizer": tokenizer, "out": str(self.out / "data")}
        return shipped | self.build | places

    def train_words(self, start: str, name: str, *changes: str) -> Words:
        """Return the words of dpo-train for one run."""
        places = [f"model={start}", f"data={self.out / 'data'}", f"out={self.out / 'runs' / name}"]
        return [str(self.train_config), *places, f"seed={self.seed}", *changes]

    @property
    def sft_words(self) -> Words:
        """Return the changes of train.yaml for fine-tuning on the chosen answers."""
        return ["loss.name=sft", "loss.beta=null", "reference=null", *(self.sft or [])]


def read(path: Path) -> Settings:
    """Return the settings of a file; the configs of its build and runs are checked too."""
    settings = read_config(Settings, path, SCHEMA)
    changes = [settings.sft_words, *(settings.train + one for one in settings.runs.values())]
    try:
        make_config(settings.build_values("model"), place=f"{path}: build")
        for words in changes:
            read_run(settings.train_config, settings.train_words("model", "run", *words)[1:])
    except CodedError as error:
        raise RecipeError(f"{path}: {error.place}", error.problem, error.remedy) from error
    return settings


def schema() -> str:
    return json.dumps(Settings.model_json_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
