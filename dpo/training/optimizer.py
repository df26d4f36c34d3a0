"""Optimizers, and the learning rate as a pure function of the step."""

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from dpo.errors import UsageError, first_line, is_of_memory
from dpo.model.quantized import require_bitsandbytes
from dpo.optimizer_config import OptimizerConfig
from dpo.training.checkpoint import State, load_checkpoint, save_checkpoint

Named = list[tuple[str, nn.Parameter]]
_BETAS, _EPS = (0.9, 0.999), 1e-8
_TIMESCALE = 10_000
"""Time scale of `inverse_sqrt` without a warm-up, in steps."""


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a model's trained parameters.

    Raises UsageError: T129 if bitsandbytes is needed and not installed, T147 for a `module:Class`
    that cannot be used.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if config.is_named:
        return _shipped(config.name, _groups(named, config), config)
    make = _find_class(config)
    _require_resumable(make, named[0][1].device, config)
    inner, rest = _split(model, named) if config.rest else (named, [])
    if not inner:
        raise _refused(config, "gets no matrix of a layer", "leave `rest` out, or use adamw")
    own = make(_groups(inner, config))
    if not rest:
        return own
    other = _shipped("adamw", _groups(rest, config), config)
    for group in other.param_groups:
        rate = config.rest_learning_rate or config.learning_rate
        group["lr_scale"] = rate / config.learning_rate
    return _Both(own, other)


def _shipped(
    name: str, groups: list[dict[str, Any]], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Return AdamW, AdamW of 8 bits, or RMSprop as in the paper's appendix B."""
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    shared["eps"] = config.eps or _EPS
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, foreach=True, **shared)
    shared["betas"] = config.betas or _BETAS
    if name == "adamw_8bit":
        made: torch.optim.Optimizer = require_bitsandbytes(
            "optimizer.name: adamw_8bit"
        ).optim.AdamW8bit(groups, **shared)
        return made
    return torch.optim.AdamW(groups, fused=True, **shared)


def _groups(named: Named, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return the parameters, with norms and biases in a second group that does not decay."""
    kept = [weight for name, weight in named if not _decays(name, weight)]
    if not config.weight_decay or config.decay_all or not kept:
        return [{"params": [weight for _, weight in named]}]
    decayed = [weight for name, weight in named if _decays(name, weight)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _decays(name: str, weight: Tensor) -> bool:
    """Return whether a parameter is neither a norm nor a bias: both are vectors.

    Biases of fused experts are matrices, one row per expert.
    """
    return weight.ndim > 1 and not name.endswith("bias")


def _split(model: nn.Module, named: Named) -> tuple[Named, Named]:
    """Return the matrices of layers, and all others: tables, head, vectors, fused experts."""
    inner: Any = getattr(model, "model", model)
    tables = [module for module in inner.modules() if isinstance(module, nn.Embedding)]
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    outside = {id(weight) for module in (*tables, head) if module for weight in module.parameters()}
    is_inner = [weight.ndim == 2 and id(weight) not in outside for _, weight in named]
    pairs = list(zip(named, is_inner, strict=True))
    return [one for one, inside in pairs if inside], [one for one, inside in pairs if not inside]


def _find_class(config: OptimizerConfig) -> Callable[[Any], torch.optim.Optimizer]:
    """Return a function that makes a `module:Class` from parameters. Raises UsageError (T147)."""
    module, _, kind = config.name.partition(":")
    remedy = "write module:Class of an installed package or of the working directory"
    try:
        found = getattr(import_module(module), kind, None)
    except Exception as error:  # a user's code may raise anything
        raise _refused(config, f"cannot be imported ({first_line(error)})", remedy) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise _refused(config, "is not a subclass of torch.optim.Optimizer", remedy)
    takes = signature(found).parameters
    has_decay = "weight_decay" in takes or any(
        one.kind is Parameter.VAR_KEYWORD for one in takes.values()
    )
    if config.weight_decay and not has_decay:
        raise _refused(config, "takes no weight_decay", "leave weight_decay out")
    shared: dict[str, Any] = {"lr": config.learning_rate, **config.settings}
    shared |= {"weight_decay": config.weight_decay} if has_decay else {}

    def make(parameters: Any) -> torch.optim.Optimizer:
        try:
            made: torch.optim.Optimizer = found(parameters, **shared)
        except Exception as error:  # a user's code may raise anything
            if is_of_memory(error):
                raise
            advice = "correct optimizer.settings; one for matrices only needs `rest: adamw`"
            raise _refused(config, f"cannot be made ({first_line(error)})", advice) from error
        return made

    return make


def _require_resumable(
    make: Callable[[Any], torch.optim.Optimizer], device: torch.device, config: OptimizerConfig
) -> None:
    """Raise UsageError (T147) unless a small model trains the same through a checkpoint.

    So whatever an optimizer keeps elsewhere than in its tensors is found before the first step. It
    has more than the 4,096 weights from which on moments are quantised.
    """
    remedy = "use an optimizer that keeps its state in `state`, and that steps without a closure"
    try:
        with TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
            models = [nn.Linear(64, 128, bias=False).to(device) for _ in range(2)]
            models[1].load_state_dict(models[0].state_dict())
            first, second = (make(model.parameters()) for model in models)
            _take_steps(first, range(1, 3))
            state = State(step=2, fingerprint="")
            path = save_checkpoint(Path(name), state, model=models[0], optimizer=first)
            files = {file.name: (0, "") for file in path.glob("*.safetensors")}
            state = state.model_copy(update={"files": files})
            load_checkpoint(path, state, model=models[1], optimizer=second)
            for optimizer in (first, second):
                _take_steps(optimizer, range(3, 6))
            same = torch.equal(models[0].weight, models[1].weight)
    except UsageError:
        raise
    except Exception as error:  # a user's code may raise anything
        if is_of_memory(error):
            raise
        raise _refused(config, f"cannot be resumed ({first_line(error)})", remedy) from error
    if not same:
        raise _refused(config, "has other steps after a checkpoint than without one", remedy)


def _take_steps(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.randn(weight.shape).to(weight)
        set_rate(optimizer, 0.01 * step)
        optimizer.step()


def _refused(config: OptimizerConfig, problem: str, remedy: str) -> UsageError:
    return UsageError("T147", f"optimizer.name: {config.name}", problem, remedy)


class _Both(torch.optim.Optimizer):
    """Two optimizers as one; their groups and states are the same objects as in this one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step of each."""
        for part in self.parts:
            part.step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both."""
        super().load_state_dict(state_dict)
        self._share()


@torch.no_grad()
def init_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the optimizer's moments as zeros, which it otherwise does in step 1.

    A step with rate 0 and gradients of 0 allocates them, weight by weight; then all state is
    zeroed, so that step 1 is unchanged. A no-op if moments exist or bitsandbytes keeps them.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # that accelerate has wrapped
    if optimizer.state or not isinstance(inner, torch.optim.AdamW | torch.optim.RMSprop):
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
            weight.grad = None
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for slots in optimizer.state.values():
        for slot in slots.values():
            slot.zero_()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups; those of `rest` have their own scale."""
    for group in optimizer.param_groups:
        own = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):  # torchao's read the tensor that they made
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def learning_rate(step: int, *, total: int, config: OptimizerConfig) -> float:
    """Return the rate of a step, counted from 1: linear warm-up from 0, then the schedule.

    These are transformers' values for `total + 1` steps, so that no step has a rate of 0.

    >>> config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, schedule="linear")
    >>> [round(learning_rate(n, total=8, config=config), 3) for n in (1, 4, 6, 8)]
    [0.25, 1.0, 0.6, 0.2]
    """
    warmup = config.warmup_steps or math.ceil((config.warmup_ratio or 0.0) * total)
    if step <= warmup:
        return config.learning_rate * step / warmup
    low = config.min_learning_rate or 0.0
    return low + (config.learning_rate - low) * _share(step, total, warmup, config)


_SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "sqrt": lambda done: 1 - math.sqrt(done),
}
"""Share of the peak rate that is left, by the done part of a decay."""


def _share(step: int, total: int, warmup: int, config: OptimizerConfig) -> float:
    """Return the share of the peak rate after the warm-up."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse_sqrt":
        scale = warmup or _TIMESCALE
        return math.sqrt(scale / (step + scale - warmup))
    if config.schedule == "wsd":
        decay = min(math.ceil((config.decay_ratio or 0.1) * total), total - warmup + 1)
        done = max(0, step - (total + 1 - decay)) / decay
        return _SHAPES[config.decay_shape or "linear"](done)
    done = (step - warmup) / (total - warmup + 1)
    if config.cycles is not None:
        return _SHAPES["cosine"](config.cycles * done % 1.0)
    return _SHAPES[config.schedule](done)
