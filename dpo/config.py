"""Settings of a training run, as one frozen model."""

from collections.abc import Iterator
from functools import cached_property
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

from dpo.loss import LOSSES, ON_MARGINS, RANKED, STATEFUL, is_reference_free, settings
from dpo.optimizer_config import OptimizerConfig
from dpo.precision import Precision, Quantize, Weights
from dpo.saving_config import EarlyStopping, EvalMetric, SampleSettings, SaveConfig
from prefdata.settings import accept_old_keys, settle_words

Count = Annotated[int, Field(gt=0, le=2**53)]
"""A number of steps, pairs or tokens that JSON and floats hold exactly."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""A seed in the range that torch accepts and JSON holds."""


PACK_ON_CPU = 1024
"""Tokens of a pack that a CPU's caches hold."""


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


_NAMES = [{"enum": list(LOSSES)}, {"pattern": r"^[\w.]+:\w+$"}]


class LossConfig(_Model):
    """A loss and its settings; `dpo-train --list-losses` prints all of them."""

    name: Annotated[str, Field(json_schema_extra={"anyOf": _NAMES})] = "dpo"
    """Name of the loss, as in its paper."""
    weight: PositiveFloat = 1.0
    """Weight of this loss if several are added."""
    beta: PositiveFloat | None = None
    """Strength of the tie to the reference. Each loss has its own default."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """Chance that a label is flipped."""
    alpha: NonNegativeFloat | None = None
    """Weight of a second term, the exponent of `alphapo`, or how far the margins of a step move the
    β of `beta_dpo`."""
    gamma: NonNegativeFloat | None = None
    """Target margin of `simpo` and `alphapo`."""
    tau: PositiveFloat | None = None
    """Temperature of `discopop`."""
    penalty: NonNegativeFloat | None = None
    """Penalty of `dpop` for each nat that chosen falls below the reference."""
    delta: NonNegativeFloat | None = None
    """Target margin of `slic`, in nats."""
    eta: PositiveFloat | None = None
    """Scale of the data's margins in the `rpo` losses."""
    beta_prime: PositiveFloat | None = None
    """Temperature of `dr_dpo`."""
    keep_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of a step's pairs that `beta_dpo` trains on."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Momentum of the running statistics of margins in `beta_dpo`."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    """Divergence from the reference, for losses of margins: https://arxiv.org/abs/2309.16240."""
    divergence_alpha: float | None = None
    """Parameter of the `alpha` divergence; 1 is the reverse KL."""

    own: dict[str, float] = {}
    """Settings that have no key of their own here, such as those of your own loss, by the names in
    its signature; they can be given next to `name` as well."""

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, value: Any) -> Any:
        return accept_old_keys(value, {"keep": "keep_fraction"})

    @model_validator(mode="before")
    @classmethod
    def _own_settings(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        own = settings(str(value.get("name", "dpo"))).keys() - cls.model_fields.keys()
        given = {key: value[key] for key in own & value.keys()}
        rest = {key: value[key] for key in value.keys() - own}
        return rest | ({"own": {**rest.get("own", {}), **given}} if given else {})

    @model_validator(mode="after")
    def _settings_are_used(self) -> "LossConfig":
        for name in self._given().keys() - settings(self.name).keys():
            takes = ", ".join(settings(self.name)) or "no settings"
            message = f"{name} is not used by {self.name}, which takes {takes}"
            raise ValueError(message)
        if self.name == "exo_pair" and self.label_smoothing == 0:
            message = "exo_pair needs a label_smoothing above 0"
            raise ValueError(message)
        if self.divergence != "reverse_kl" and self.name not in ON_MARGINS:
            message = (
                f"{self.name} supports only reverse_kl; other divergences: {', '.join(ON_MARGINS)}"
            )
            raise ValueError(message)
        if (self.divergence == "alpha") != (self.divergence_alpha is not None):
            message = "`divergence: alpha` and divergence_alpha need each other"
            raise ValueError(message)
        return self

    def _given(self) -> dict[str, float]:
        taken = {"name", "weight", "divergence", "divergence_alpha", "own"}
        return self.model_dump(exclude=taken, exclude_none=True) | self.own

    @cached_property
    def settings(self) -> dict[str, float]:
        """Return the loss's keyword arguments: its defaults, overridden by the config."""
        return settings(self.name) | self._given()


def _as_list(value: Any, *kinds: type) -> Any:
    """Return one value of these kinds as a list of one."""
    return [value] if isinstance(value, kinds) else value


Losses = Annotated[
    tuple[LossConfig, ...],
    Field(min_length=1),
    BeforeValidator(
        lambda value: _as_list(value, dict, LossConfig),
        json_schema_input_type=LossConfig | tuple[LossConfig, ...],
    ),
]
Tracker = Literal[
    "tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "swanlab", "clearml", "aim", "dvclive"
]
Trackers = Annotated[
    tuple[Tracker, ...],
    BeforeValidator(
        lambda value: _as_list(value, str), json_schema_input_type=Tracker | tuple[Tracker, ...]
    ),
]


class LoraSettings(_Model):
    """A low-rank adapter, trained instead of the weights (https://arxiv.org/abs/2106.09685)."""

    start: str | None = None
    """An adapter to continue, such as one of supervised fine-tuning: its directory, or a hub name.
    Rank, alpha, targets and kind are its own; the reference is the model with this adapter. A
    `model` that is or has an adapter is continued the same way. Null: a fresh one."""
    r: Count = 16
    """Rank of the adapter."""
    alpha: PositiveFloat = 32
    """The adapter's output is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the adapter's input; only with `dropout: true`."""
    targets: Annotated[
        Literal["all-linear"] | tuple[str, ...],
        BeforeValidator(
            lambda value: value if value == "all-linear" else _as_list(value, str),
            json_schema_input_type=str | tuple[str, ...],
        ),
    ] = "all-linear"
    """Layers by the ends of their names, or `all-linear`: all linear layers except the head, and
    those that peft cannot adapt."""
    dora: bool = False
    """Train directions and magnitudes separately (https://arxiv.org/abs/2402.09353)."""
    rslora: bool = False
    """Scale by alpha / √r (https://arxiv.org/abs/2312.03732)."""


class ReferenceConfig(_Model):
    """Stored log-probs that are used as the reference."""

    name: str = "default"
    """The directory under `reference/` that `dpo-ref --name` wrote."""
    model: str | None = None
    """The model that computed them. Null: the initial policy, as in the paper."""


class TrainConfig(_Model):
    """One run of `dpo-train`."""

    model: str
    """Initial policy: the directory of a transformers checkpoint, or a hub name."""
    data: Path
    """Directory of a finished `prefdata build`, or a dataset on the Hub: `ORG/NAME[@REVISION]`."""
    out: Path
    """Directory for metrics, checkpoints and the final model."""
    reference: ReferenceConfig | None = ReferenceConfig()
    """Stored log-probs that are used as the reference. Null uses none, for losses without a
    reference: metrics that need it, such as rewards, are absent. Those losses also train without it
    if the build has no log-probs of the default name."""
    loss: Losses = (LossConfig(),)
    """One loss, or a list of losses that are added, each times its `weight`."""
    ld_alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """LD-DPO (https://arxiv.org/abs/2409.06411): weight of the tokens beyond the length of a
    pair's shorter completion. Null: they count like the others."""
    sampo: bool = False
    """SamPO (https://arxiv.org/abs/2406.10957): of a pair's longer completion, count only as many
    tokens as the shorter one has, drawn by `seed` and pair."""
    wpo: bool = False
    """WPO (https://arxiv.org/abs/2406.11827): pairs unlikely under the policy weigh less."""
    router_aux_loss_coef: PositiveFloat | None = None
    """Coefficient of the load-balancing loss of MoE models (https://arxiv.org/abs/2101.03961), over
    all tokens of a step; transformers' configs have 0.001 to 0.02. Null: not added."""
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraSettings | None = None
    """An adapter to train; null trains all weights. The model in `out` has it merged."""
    weights: Weights | None = None
    """Dtype in which weights are held. bfloat16 takes half the memory: weights that train are then
    stepped in float32 and rounded stochastically, with gradients in bfloat16. The reference must
    have been computed with the same. Null: float32 for weights that train or are sharded; under
    `lora`, bfloat16 if the checkpoint has it."""
    quantize: Quantize | None = None
    """Hold the linear layers under `lora` in 4 (`nf4`) or 8 bits (`int8`) per weight; needs
    bitsandbytes. The reference must have been computed with the same."""
    attention: str = "auto"
    """Attention over packs: `segments` (SDPA text by text), `flex` (one FlexAttention kernel), or
    `auto`: `flex` on a GPU without dropout (in float32 only with 160 KB of shared memory a
    block, as an A100 has), else `segments`."""
    gradient_checkpointing: bool | None = None
    """Run layers again in the backward pass: less memory, a third more compute. Null: only if the
    longest pair would not fit into the device's memory otherwise."""
    global_batch_size: Count = 64
    """Pairs, or groups, per optimizer step, over all devices."""
    batch_unit: Literal["pairs", "groups"] = "pairs"
    """Unit of a step. `groups`: a prompt with all its pairs, which are kept in one step; each
    distinct completion is run once."""
    average_over: Literal["pairs", "groups"] = "pairs"
    """How the loss of a step of `groups` is averaged: over its pairs, or over its groups (the mean
    of their means)."""
    steps: Count | None = None
    """Optimizer steps. Null: as many whole steps as `epochs` contains."""
    epochs: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Passes over the train split. If this and `steps` are null: one."""
    pack_tokens: Count | None = None
    """Tokens per forward pass on one device: decides memory, never the pairs or the loss. Null:
    1,024 on a CPU, whose caches small packs fit; on a GPU, as many as its memory holds."""
    mixed_precision: Precision | None = None
    """`bf16` and `fp16` run matrix products in that dtype; weights and sums stay float32. fp16
    scales the loss, and repeats a step whose gradients overflow at half the scale. Null: bf16 on a
    GPU that has it, else `no`."""
    dropout: bool = False
    """Enable the model's own dropout in training."""
    seed: Seed = 0
    """Seed of the order of pairs and of dropout."""
    eval_split: str | None = "auto"
    """Split to evaluate on; null evaluates nothing. `auto`: the first that exists of test, eval and
    validation, else the last by name that is not train."""
    eval_splits: tuple[str, ...] = ()
    """Further splits to evaluate on, logged as `eval/NAME/…`."""
    eval_samples: Annotated[
        SampleSettings | None,
        BeforeValidator(
            lambda value: {"prompts": value} if isinstance(value, int) else value,
            json_schema_input_type=Count | SampleSettings | None,
        ),
    ] = None
    """Completions of the policy at each evaluation, of as many prompts of `eval_split`, always the
    same: in `samples.jsonl` and on the run's page."""
    eval_every: Count | None = None
    """Steps between evaluations; the last step always has one."""
    eval_rows: Count | None = None
    """Evaluate at most this many pairs, the first of the split; null evaluates all."""
    keep_best: EvalMetric | None = None
    """Save the weights of the best evaluation by this metric, such as `eval/loss`, instead of the
    last ones. Its name decides whether lower or higher is better."""
    early_stopping: EarlyStopping | None = None
    """End the run, as finished, once evaluations no longer improve; null takes all steps."""
    skip_nonfinite: Annotated[int, Field(ge=0)] = 0
    """Maximum number of steps with a non-finite loss or gradient to skip; one more stops the run
    (T301)."""
    save: SaveConfig = SaveConfig()
    checkpoint_every: Count | None = None
    """Steps between checkpoints. Null: only when a signal stops the run."""
    keep_checkpoints: Count = 2
    """Checkpoints to keep; older ones are removed when a new one is complete."""
    log_every: Count = 1
    """Steps between lines of the metrics file."""
    log_pairs: bool = False
    """Write the ids of the pairs that the ranks ran in each step to `pairs.jsonl`."""
    trackers: Trackers = ()
    """accelerate trackers that also get the metrics, one or several. Their project is that of the
    environment (WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME, …), else `dpo`; each package must be
    installed."""

    @property
    def precision(self) -> Precision:
        """Return `mixed_precision`; a run replaces null by what its device has."""
        return self.mixed_precision or "no"

    @property
    def pack_size(self) -> int:
        """Return `pack_tokens`; a run replaces null by what its device holds."""
        return self.pack_tokens or PACK_ON_CPU

    @property
    def checkpoints(self) -> bool:
        """Return `gradient_checkpointing`; a run replaces null by whether it is needed."""
        return bool(self.gradient_checkpointing)

    @property
    def reference_model(self) -> str | None:
        """Return the model of the reference log-probs, if it is not the initial policy."""
        return None if self.reference is None else self.reference.model

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, value: Any) -> Any:
        return settle_words(accept_old_keys(value, {"weigh": "average_over"}), cls)

    @model_validator(mode="after")
    def _settings_fit(self) -> "TrainConfig":
        message = next((message for is_wrong, message in self._conflicts() if is_wrong), None)
        if message is not None:
            raise ValueError(message)
        return self

    def _saving_conflicts(self) -> Iterator[tuple[bool, str]]:
        """Yield those of what is saved, and which step of it."""
        watches = self.keep_best is not None or self.early_stopping is not None
        yield (
            watches and (self.eval_every is None or self.eval_split is None),
            "keep_best and early_stopping need eval_every and an eval_split",
        )
        yield (
            self.lora is None and not self.save.adapter,
            "save.adapter is that of `lora`, which is not set",
        )
        yield (
            self.save.dtype is not None and not self.save.merged,
            "save.dtype is that of the merged model, which save.merged: false leaves out",
        )

    def _conflicts(self) -> Iterator[tuple[bool, str]]:
        """Yield what two settings must not be together, and whether they are."""
        names, by_group = [loss.name for loss in self.loss], self.average_over == "groups"
        for name in (name for name in names if not is_reference_free(name)):
            yield self.reference is None, f"{name} needs reference log-probs; `reference` is null"
        yield (
            self.quantize is not None and self.lora is None,
            "quantize needs `lora`: quantized weights cannot be trained, an adapter on them can",
        )
        yield (
            self.weights == "bfloat16" and self.mixed_precision == "fp16",
            "weights: bfloat16 needs `mixed_precision: bf16` or `no`",
        )
        yield (
            self.lora is not None and self.lora.dropout > 0 and not self.dropout,
            "lora.dropout needs `dropout: true`",
        )
        yield (
            not self.save.merged and (self.lora is None or not self.save.adapter),
            "save.merged: false leaves no model; it needs `lora` and save.adapter",
        )
        yield from self._saving_conflicts()
        for name in STATEFUL:
            message = f"{name} keeps running statistics and can appear only once in `loss`"
            yield names.count(name) > 1, message
        yield (
            self.sampo and self.ld_alpha is not None,
            "sampo and ld_alpha both set the weights of tokens; give one",
        )
        yield (
            by_group and self.batch_unit != "groups",
            "average_over: groups needs `batch_unit: groups`",
        )
        for name in RANKED:
            message = f"{name} needs `batch_unit: groups` and `average_over: groups`"
            yield name in names and not by_group, message
        yield (
            self.eval_samples is not None and self.eval_split is None,
            "eval_samples needs an eval_split, whose prompts it completes",
        )
        yield (
            len({*self.eval_splits, self.eval_split}) <= len(self.eval_splits),
            "eval_splits lists a split twice, or the one that eval_split evaluates",
        )
        yield (
            self.steps is not None and self.epochs is not None,
            "steps and epochs both set the length of training; give one",
        )
