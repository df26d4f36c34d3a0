"""What a training run is asked to do: one frozen model."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    model_validator,
)

from dpo.loss import LOSSES, ON_MARGINS, RANKED, STATEFUL, settings
from dpo.precision import Precision
from prefdata.settings import accept_old_keys

Count = Annotated[int, Field(gt=0, le=2**53)]
"""A number of steps, pairs or tokens: what JSON and floats hold exactly."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What torch takes and JSON holds."""


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class LossConfig(_Model):
    """Which loss, and the settings that this loss takes; `dpo-train --list-losses` has them all."""

    name: Annotated[str, Field(json_schema_extra={"enum": list(LOSSES)})] = "dpo"
    """The loss, by the name of its paper."""
    weight: PositiveFloat = 1.0
    """Of this loss, where several are added."""
    beta: PositiveFloat | None = None
    """Strength of the tie to the reference. Each loss has a default of its own."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """Chance that a label is flipped."""
    alpha: NonNegativeFloat | None = None
    """Weight of a second term, the exponent of `alphapo`, or how far the margins of a step move the
    β of `beta_dpo`."""
    gamma: NonNegativeFloat | None = None
    """The margin that `simpo` and `alphapo` ask for."""
    tau: PositiveFloat | None = None
    """The temperature of `discopop`."""
    penalty: NonNegativeFloat | None = None
    """What `dpop` takes for each nat that chosen falls below the reference."""
    delta: NonNegativeFloat | None = None
    """The margin that `slic` asks for, in nats."""
    eta: PositiveFloat | None = None
    """The scale of the data's margins in the `rpo` losses."""
    beta_prime: PositiveFloat | None = None
    """The temperature of `dr_dpo`."""
    keep_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a step's pairs that `beta_dpo` trains on."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """How much of what `beta_dpo` remembers of margins stays with each step."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    """From the reference, for losses of margins: https://arxiv.org/abs/2309.16240."""
    divergence_alpha: float | None = None
    """Of the `alpha` divergence: 1 is the reverse KL."""

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, value: Any) -> Any:
        return accept_old_keys(value, {"keep": "keep_fraction"})

    @model_validator(mode="after")
    def _settings_are_used(self) -> "LossConfig":
        if self.name not in LOSSES:
            near = get_close_matches(self.name, LOSSES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see `dpo-train --list-losses`"
            message = f"{self.name!r} is no loss; {hint}"
            raise ValueError(message)
        for name in self._given().keys() - settings(self.name).keys():
            takes = ", ".join(settings(self.name)) or "no settings"
            message = f"{name} is not used by {self.name}, which takes {takes}"
            raise ValueError(message)
        if self.name == "exo_pair" and self.label_smoothing == 0:
            message = "exo_pair needs a label_smoothing above 0"
            raise ValueError(message)
        if self.divergence != "reverse_kl" and self.name not in ON_MARGINS:
            message = (
                f"{self.name} has the reverse KL alone; others are for {', '.join(ON_MARGINS)}"
            )
            raise ValueError(message)
        if (self.divergence == "alpha") != (self.divergence_alpha is not None):
            message = "divergence: alpha and divergence_alpha go together"
            raise ValueError(message)
        return self

    def _given(self) -> dict[str, float]:
        taken = {"name", "weight", "divergence", "divergence_alpha"}
        return self.model_dump(exclude=taken, exclude_none=True)

    @property
    def settings(self) -> dict[str, float]:
        """What to call the loss with: its defaults, and over them what the config gives."""
        return settings(self.name) | self._given()


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict | LossConfig) else value


Losses = Annotated[
    tuple[LossConfig, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=LossConfig | tuple[LossConfig, ...]),
]


class OptimizerConfig(_Model):
    """How weights move."""

    name: Literal["adamw", "rmsprop", "adamw_8bit"] = "adamw"
    """`rmsprop` is the paper's (appendix B of https://arxiv.org/abs/2305.18290). `adamw_8bit` keeps
    its moments in a byte a weight (https://arxiv.org/abs/2110.02861), where bitsandbytes is."""
    learning_rate: PositiveFloat = 1e-6
    """Reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Steps of linear growth from 0; the paper takes 150."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up: no change, or a fall to 0 at the last step."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled (AdamW), or added to the gradient (RMSprop)."""
    max_grad_norm: PositiveFloat | None = 1.0
    """The gradient of a step is scaled down to this norm; null leaves it alone."""


class LoraSettings(_Model):
    """A low-rank adapter, trained in the stead of the weights (https://arxiv.org/abs/2106.09685)."""

    r: Count = 16
    """Its rank."""
    alpha: PositiveFloat = 32
    """Its output is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of its input; only with `dropout: true`."""
    targets: str | tuple[str, ...] = "all-linear"
    """Layers by the ends of their names, or `all-linear`: all but the head."""
    dora: bool = False
    """Whether directions and lengths are trained apart (https://arxiv.org/abs/2402.09353)."""
    rslora: bool = False
    """Whether to scale by alpha / √r (https://arxiv.org/abs/2312.03732)."""


class ReferenceConfig(_Model):
    """Which stored log-probs stand for the reference."""

    name: str = "default"
    """The folder under `reference/` that `dpo-ref --name` wrote."""
    model: str | None = None
    """The model they came from. Null: the policy as it starts, which is the paper's way."""


class TrainConfig(_Model):
    """One run of `dpo-train`."""

    model: str
    """The policy as it starts: a transformers checkpoint's folder, or a hub name."""
    data: Path
    """The folder of a finished `prefdata build`, or a set on the Hub: `ORG/NAME[@REVISION]`."""
    out: Path
    """Where metrics, checkpoints and the final model go."""
    reference: ReferenceConfig = ReferenceConfig()
    loss: Losses = (LossConfig(),)
    """One loss, or a list of them that are added, each times its `weight`."""
    ld_alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """LD-DPO (https://arxiv.org/abs/2409.06411): the weight of tokens beyond the length that both
    completions of a pair have. Null: they count as the others do."""
    sampo: bool = False
    """SamPO (https://arxiv.org/abs/2406.10957): of the longer completion of a pair, as many tokens
    count as the shorter one has, drawn by `seed` and pair."""
    wpo: bool = False
    """WPO (https://arxiv.org/abs/2406.11827): pairs that the policy would hardly say weigh less."""
    router_aux_loss_coef: PositiveFloat | None = None
    """Of the load-balancing loss of a mixture of experts (https://arxiv.org/abs/2101.03961), which
    is one over all tokens of a step; transformers' configs have 0.001 to 0.02. Null: not added."""
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraSettings | None = None
    """An adapter to train; null trains all weights. The model in `out` has it merged."""
    gradient_checkpointing: bool = False
    """Whether layers are run again in the backward pass: less memory, a third more work."""
    global_batch_size: Count = 64
    """Pairs, or groups, per optimizer step, over all devices."""
    batch_unit: Literal["pairs", "groups"] = "pairs"
    """What a step counts. `groups`: a prompt with all its pairs, which are in one step together and
    cost one pass of each distinct completion."""
    average_over: Literal["pairs", "groups"] = "pairs"
    """How the loss of a step of `groups` is averaged: over its pairs, or over its groups (the mean
    of their means)."""
    steps: Count | None = None
    """Optimizer steps. Null: as many whole steps as `epochs` holds."""
    epochs: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Passes over the train split. Null, where `steps` is null too: one."""
    pack_tokens: Count = 1024
    """Tokens that a device runs at once: decides memory, never the pairs or the loss. Small packs
    stay near a CPU's caches; a GPU wants 8,192 or more."""
    mixed_precision: Precision = "no"
    """`bf16` and `fp16` run matrix products in that dtype; weights and sums stay float32. fp16 has
    its loss scaled, and a step whose gradients overflow is run again at half the scale."""
    dropout: bool = False
    """Whether the model's own dropout is on in training."""
    seed: Seed = 0
    """Of the order of pairs and of dropout."""
    eval_split: str | None = "auto"
    """The split to evaluate on; null evaluates nothing. `auto`: test, or else eval, validation, or
    the last by name of the others that are not train."""
    eval_every: Count | None = None
    """Steps between evaluations; one at the end is always made."""
    eval_rows: Count | None = None
    """The first so many pairs of the split; null takes all."""
    skip_nonfinite: Annotated[int, Field(ge=0)] = 0
    """So many steps of a run whose loss or gradient is not finite are left out, the weights as they
    were; the next one, with 0 the first one, stops the run (T301)."""
    checkpoint_every: Count | None = None
    """Steps between checkpoints. Null: only when the run is stopped by a signal."""
    keep_checkpoints: Count = 2
    """Older ones are removed once a new one is complete."""
    log_every: Count = 1
    """Steps between lines of the metrics file."""
    log_pairs: bool = False
    """Whether `pairs.jsonl` lists the ids of the pairs of each step, as the ranks ran them."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """accelerate trackers that get the metrics too."""

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, value: Any) -> Any:
        return accept_old_keys(value, {"weigh": "average_over"})

    @model_validator(mode="after")
    def _dropout_is_on(self) -> "TrainConfig":
        if self.lora is not None and self.lora.dropout and not self.dropout:
            message = "lora.dropout is used with `dropout: true` alone"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _one_loss_remembers(self) -> "TrainConfig":
        names = [loss.name for loss in self.loss]
        twice = next((name for name in names if name in STATEFUL and names.count(name) > 1), None)
        if twice is not None:
            message = f"{twice} keeps running statistics and can appear only once in `loss`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _tokens_count_one_way(self) -> "TrainConfig":
        if self.sampo and self.ld_alpha is not None:
            message = "sampo and ld_alpha both say how much tokens count; give one"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _groups_are_whole(self) -> "TrainConfig":
        if self.average_over == "groups" and self.batch_unit != "groups":
            message = "average_over: groups is used with `batch_unit: groups` alone"
            raise ValueError(message)
        ranked = next((loss.name for loss in self.loss if loss.name in RANKED), None)
        if ranked is not None and self.average_over != "groups":
            message = f"{ranked} needs `batch_unit: groups` and `average_over: groups`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> "TrainConfig":
        if self.steps is not None and self.epochs is not None:
            message = "steps and epochs both say how long to train; give one"
            raise ValueError(message)
        return self
