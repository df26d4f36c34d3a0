"""Settings of the optimizer, its learning-rate schedule and gradient clipping."""

import operator
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Steps = Annotated[int, Field(ge=0, le=2**53)]
Schedule = Literal["constant", "linear", "cosine", "cosine_restarts", "wsd", "inverse_sqrt"]
Setting = bool | int | float | str | list[float] | None
Below1 = Annotated[float, Field(ge=0, lt=1)]

_LATER = Field(exclude_if=operator.not_)
"""A setting that is absent from dumps unless given, so that fingerprints of older runs last."""
NAMED = ("adamw", "rmsprop", "adamw_8bit")
_ADAM = ("adamw", "adamw_8bit")
_DECAYS = ("linear", "cosine", "cosine_restarts", "wsd")


class OptimizerConfig(BaseModel):
    """Optimizer, learning-rate schedule and gradient clipping."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    name: Annotated[
        str,
        Field(json_schema_extra={"anyOf": [{"enum": [*NAMED]}, {"pattern": r"^[\w.]+:\w+$"}]}),
    ] = "adamw"
    """`rmsprop` is the paper's (appendix B of https://arxiv.org/abs/2305.18290). `adamw_8bit` keeps
    its moments in a byte per weight (https://arxiv.org/abs/2110.02861) and needs bitsandbytes.
    `module:Class` is any optimizer with torch's interface, such as `torch.optim:Muon`."""
    settings: Annotated[dict[str, Setting], _LATER] = {}
    """Arguments of a `module:Class`, in addition to the learning rate and weight decay."""
    rest: Annotated[Literal["adamw"] | None, _LATER] = None
    """Optimizer of all that are not matrices of layers (embeddings, head, norms, biases), next to a
    `module:Class` for the matrices. Muon needs it unless an adapter is trained."""
    rest_learning_rate: Annotated[PositiveFloat | None, _LATER] = None
    """Peak rate of `rest`, with the same schedule. Null: `learning_rate`."""
    betas: Annotated[tuple[Below1, Below1] | None, _LATER] = None
    """AdamW's decay rates of the moments. Null: 0.9 and 0.999."""
    eps: Annotated[PositiveFloat | None, _LATER] = None
    """Term that AdamW and RMSprop add to the denominator. Null: 1e-8."""
    learning_rate: PositiveFloat = 1e-6
    """Peak rate, reached after the warm-up."""
    warmup_steps: Steps = 0
    """Steps of linear growth from 0; the paper uses 150."""
    warmup_ratio: Annotated[Annotated[float, Field(gt=0, le=1)] | None, _LATER] = None
    """The same as a share of all steps, rounded up."""
    schedule: Schedule = "constant"
    """After the warm-up: no change; a decay that reaches its end one step after the last
    (`linear`, `cosine`, `cosine_restarts` with `cycles`); `wsd`: no change, then a decay
    (https://arxiv.org/abs/2404.06395); or `inverse_sqrt` of the step. transformers' values."""
    min_learning_rate: Annotated[PositiveFloat | None, _LATER] = None
    """Rate at the end of a decay. Null: 0."""
    cycles: Annotated[PositiveInt | None, _LATER] = None
    """Cosines of `cosine_restarts`, each from the peak."""
    decay_ratio: Annotated[Annotated[float, Field(gt=0, le=1)] | None, _LATER] = None
    """Share of all steps in which `wsd` decays, at the end. Null: 0.1."""
    decay_shape: Annotated[Literal["linear", "cosine", "sqrt"] | None, _LATER] = None
    """Decay of `wsd`; `sqrt` is 1 − √x (https://arxiv.org/abs/2405.18392). Null: linear."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled (AdamW), or added to the gradient (RMSprop). Norms and biases do not decay, as in
    transformers, unless `decay_all`."""
    decay_all: Annotated[bool, _LATER] = False
    """Apply `weight_decay` to norms and biases too."""
    max_grad_norm: PositiveFloat | None = 1.0
    """The gradient of a step is clipped to this norm; null does not clip."""

    @property
    def is_named(self) -> bool:
        """Return whether `name` is one of ours, not `module:Class`."""
        return self.name in NAMED

    @property
    def needs_total(self) -> bool:
        """Return whether a step's rate depends on the number of all steps."""
        return self.schedule in _DECAYS or self.warmup_ratio is not None

    @model_validator(mode="after")
    def _settings_are_used(self) -> "OptimizerConfig":
        wrong = (*self._unused_of_optimizer(), *self._unused_of_schedule())
        message = next((message for is_wrong, message in wrong if is_wrong), None)
        if message is not None:
            raise ValueError(message)
        return self

    def _unused_of_optimizer(self) -> Iterator[tuple[bool, str]]:
        """Yield what the optimizer cannot use, and whether it is given."""
        name, takes = self.name, self.rest or self.name
        module, _, kind = name.partition(":")
        yield (
            not self.is_named and not (module and kind),
            f"{name!r} is not an optimizer; write {', '.join(NAMED)} or module:Class",
        )
        yield self.is_named and bool(self.settings), f"settings is not used by {name}"
        for key in ("params", "lr", "weight_decay"):
            message = f"settings.{key} is not a setting; learning_rate and weight_decay have keys"
            yield key in self.settings, message
        yield (
            self.is_named and self.rest is not None,
            f"rest is not used by {name}, which takes all",
        )
        yield (
            self.rest is None and self.rest_learning_rate is not None,
            "rest_learning_rate needs `rest`",
        )
        hint = "" if self.is_named else "; write it in settings"
        yield self.betas is not None and takes not in _ADAM, f"betas is not used by {name}{hint}"
        of_eps = takes in NAMED
        yield self.eps is not None and not of_eps, f"eps is not used by {name}{hint}"
        yield self.decay_all and not self.weight_decay, "decay_all needs a weight_decay above 0"

    def _unused_of_schedule(self) -> Iterator[tuple[bool, str]]:
        """Yield whether a setting is given that the schedule cannot use, and the message."""
        schedule, low = self.schedule, self.min_learning_rate
        yield (
            bool(self.warmup_steps) and self.warmup_ratio is not None,
            "warmup_steps and warmup_ratio both set the warm-up; give one",
        )
        yield (
            low is not None and schedule not in _DECAYS,
            f"min_learning_rate is not used by {schedule}, which decays to no end",
        )
        yield (
            low is not None and low >= self.learning_rate,
            "min_learning_rate must be below learning_rate",
        )
        yield (
            (self.cycles is not None) != (schedule == "cosine_restarts"),
            "`schedule: cosine_restarts` and cycles need each other",
        )
        for key in ("decay_ratio", "decay_shape"):
            message = f"{key} is not used by {schedule}; `schedule: wsd` takes it"
            yield getattr(self, key) is not None and schedule != "wsd", message
