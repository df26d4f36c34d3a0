"""Everything that a run needs, opened and checked before its first step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from dpo.config import ReferenceConfig, TrainConfig
from dpo.data.pairs import Pairs
from dpo.data.reference_folder import MANIFEST, reference_folder
from dpo.data.reference_store import Reference, open_reference
from dpo.data.sampler import Order, make_order, num_steps
from dpo.errors import UsageError
from dpo.model.adapters import absorb_adapter, has_adapter
from dpo.model.attention import require_backend
from dpo.model.fingerprints import (
    WeightsId,
    check_lengths,
    check_reference,
    check_tokenizer,
    check_vocabulary,
)
from dpo.model.load import check_model, require_trainable
from dpo.model.moe import check_routing
from dpo.model.policy import Policy, PolicyOptions, device_of
from dpo.model.self_check import length_notice, logits_notice, make_policy
from dpo.model.sharded import Sharding, fill, load_part
from dpo.model.source import ModelSource, find_parts
from dpo.model.spot_check import Spread, spot_check
from dpo.model.weights import left_out
from dpo.precision import LossScale, autocast
from dpo.training.best import Watch, check_watched
from dpo.training.deciding import Deciding
from dpo.training.distributed import for_training, is_sharded, sharding
from dpo.training.metrics import OF_REFERENCE
from dpo.training.mfu import MfuMeter, make_machine
from dpo.training.objective import Objective
from dpo.training.optimizer import make_optimizer
from dpo.training.plan import Plan, Run, make_plan, place_of
from dpo.training.rounding import step_in_float32
from dpo.training.samples import Sampler, open_sampler
from dpo.training.split import Split, read_eval_splits, read_split
from prefdata.hub.inputs import is_hub_name
from prefdata.records.split_names import rank_of
from prefdata.sharing.local import pull_cached
from prefdata.store.reader import Build, open_lazily


@dataclass(frozen=True)
class TrainContext:
    """State of a run that has passed its checks."""

    config: TrainConfig
    accelerator: Accelerator
    build: Build
    train: Split
    order: Order
    """Assignment of the train split's pairs to steps."""
    test: Split | None
    further: dict[str, Split]
    """Further splits to evaluate on, by name."""
    sampler: Sampler | None
    """Prompts to complete at each evaluation."""
    policy: Policy
    """Policy as accelerate prepared it: call it, so that the hooks of DDP and others run."""
    optimizer: torch.optim.Optimizer
    objective: Objective
    scale: LossScale
    watch: Watch
    machine: MfuMeter
    total_steps: int
    starts_as_reference: bool
    spread: Spread | None
    """Differences of recomputed rows from the stored log-probs; None if there are none."""
    unshared_because: str | None
    notices: tuple[str, ...]
    """Messages about weights that were left out, pairs beyond the model's stated length, and texts
    that run in rows of their own because of their length."""
    decides: Deciding
    reference_hash: str | None
    plan: Plan

    @property
    def fingerprint(self) -> str:
        """Return the hash of what decides every step."""
        return self.decides.fingerprint

    def autocast(self) -> torch.autocast:
        """Return the autocast context of a forward pass."""
        return autocast(self.accelerator.device, self.config.precision)


def open_run(
    config: TrainConfig,
    accelerator: Accelerator,
    on_message: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> TrainContext:
    """Open data, reference and model, and check that they match; `on_message` gets the plan."""
    source, how = source_of(config), sharding()
    empty = _check_models(config, source)
    build, config = _open_data(config, accelerator)
    largest_id = check_tokenizer(find_parts(source).tokenizer, build)
    objective = Objective(config.loss)
    data = _read_data(build, config, objective)
    reference, train, test = data.reference, data.train, data.test
    ranks, place = accelerator.num_processes, place_of(accelerator.device)
    plan = make_plan(empty, Run(config, source, train.pairs, data.order, place, how, ranks))
    for line in plan.lines:
        on_message(line)
    config = plan.config
    policy, why, notices = _open_policy(config, data.seen, largest_id, (accelerator.device, how))
    weights = WeightsId.of(source, policy.model)
    spread = reference and _check_reference(config, policy, weights, train, (reference, how))
    sampler = None if test is None else open_sampler(config, test.pairs, policy)
    policy, more = for_training(policy, config, how)
    machine = make_machine(policy, precision=config.precision)
    prepared, optimizer = _prepare(policy, config, accelerator)
    return TrainContext(
        config=config,
        accelerator=accelerator,
        build=build,
        train=train,
        order=data.order,
        test=test,
        further=data.further,
        sampler=sampler,
        policy=prepared,
        optimizer=optimizer,
        objective=objective,
        scale=LossScale(config.precision),
        watch=Watch(config),
        machine=machine,
        total_steps=num_steps(config, len(data.order)),
        starts_as_reference=reference is not None and weights.made(reference.manifest),
        spread=spread,
        unshared_because=why,
        notices=(*notices, *more, *(() if reference is not None else (_WITHOUT_REFERENCE,))),
        decides=Deciding.of(config, build, reference, weights),
        reference_hash=reference and reference.manifest.hash,
        plan=plan,
    )


class _Data(NamedTuple):
    """Splits of a run with their reference."""

    reference: Reference | None
    train: Split
    order: Order
    test: Split | None
    further: dict[str, Split]

    @property
    def seen(self) -> list[Pairs]:
        """Return the pairs of all splits."""
        splits = (self.train, self.test, *self.further.values())
        return [split.pairs for split in splits if split is not None]


def _read_data(build: Build, config: TrainConfig, objective: Objective) -> _Data:
    reference = _open_reference(build, config, objective)
    train = read_split(build, reference, "train", config)
    _require_margins(objective, train.pairs, place=str(config.data))
    order = make_order(train.pairs, config)
    if config.batch_unit == "groups" and len(order) != build.splits["train"].groups:
        train.pairs.shards.check()  # a mixture has more; else ids are damaged, and the order wrong
    further = read_eval_splits(build, reference, config)
    check_watched(config, reference, {name: split.sources for name, split in further.items()})
    test = further.pop(config.eval_split or "", None)
    return _Data(reference, train, order, test, further)


def _check_models(config: TrainConfig, source: ModelSource) -> PreTrainedModel:
    """Check the policy and the reference's own model; return the policy without weights."""
    empty = check_model(source)
    require_trainable(source)
    if config.reference_model not in (None, config.model):
        check_model(config.reference_model)
    return empty


def source_of(config: TrainConfig) -> ModelSource:
    """Return the model that a run starts from."""
    lora = config.lora
    start = None if lora is None else lora.start
    weights = config.weights or (None if sharding() is None else "float32")
    return ModelSource(config.model, start, weights, config.quantize, lora is not None)


def _prepare(
    policy: Policy, config: TrainConfig, accelerator: Accelerator
) -> tuple[Policy, torch.optim.Optimizer]:
    """Return the policy in training and its optimizer, both as accelerate prepared them."""
    if accelerator.num_processes == 1 and not is_sharded(policy):
        policy.add_gradients_in_place()
    optimizer = make_optimizer(policy, config.optimizer)
    step_in_float32(optimizer)
    prepared = (policy, optimizer)
    if not is_sharded(policy):
        prepared = accelerator.prepare(*prepared)
    prepared[0].train()
    return prepared


_WITHOUT_REFERENCE = (
    "trains without reference log-probs, which its loss does not use; metrics that need them are"
    f" absent: {', '.join(OF_REFERENCE)}"
)


def _open_reference(build: Build, config: TrainConfig, objective: Objective) -> Reference | None:
    """Return the run's reference log-probs; None for losses without a reference if there are none.

    A name other than the default one must exist.
    """
    if config.reference is None:
        return None
    name = config.reference.name
    is_optional = objective.is_reference_free and config.reference == ReferenceConfig()
    if is_optional and not (reference_folder(build.path, name) / MANIFEST).exists():
        return None
    return open_reference(build, name)


def _open_policy(
    config: TrainConfig,
    seen: list[Pairs],
    largest_id: int,
    where: tuple[torch.device, Sharding | None],
) -> tuple[Policy, str | None, tuple[str, ...]]:
    """Return the policy, why its prompts are not shared, and messages about the model.

    Its attention is checked on the pairs of the run.
    """
    device, how = where
    require_backend(config.attention, device, dropout=config.dropout)
    model = load_part(source_of(config), device=device, how=how, dropout=config.dropout)
    if has_adapter(model) and config.lora is None:
        absorb_adapter(model)
    check_vocabulary(model, *seen, largest_known=largest_id, place=config.model)
    options = PolicyOptions(
        backend=config.attention,
        dropout=config.dropout,
        log_sum_sq_probs=config.wpo,
        loads=config.router_aux_loss_coef is not None,
    )
    if options.loads:
        check_routing(model, place=config.model)
    lengths = [check_lengths(model, pairs, place=config.model) for pairs in seen]
    prepare = partial(fill, name=find_parts(config.model).base, how=how)
    precision = config.precision
    policy, why = make_policy(model, *seen, options=options, precision=precision, prepare=prepare)
    by_length = length_notice(policy, *seen) if why is None else None
    base = find_parts(config.model).base
    notices = [left_out(base, model), *lengths, by_length, logits_notice(policy)]
    return policy, why, tuple(notice for notice in notices if notice is not None)


def _require_margins(objective: Objective, pairs: Pairs, *, place: str) -> None:
    name = objective.needs_margins
    missing = 0 if name is None else pairs.num_without_margin()
    if missing:
        pairs.shards.check()  # so that damage is reported as such
        problem = f"{missing:,} pairs have no margin, which {name} needs"
        remedy = "build from data with scores or margins, or choose another loss"
        raise UsageError("T126", place, problem, remedy)


def _check_reference(
    config: TrainConfig,
    policy: Policy,
    weights: WeightsId,
    train: Split,
    source: tuple[Reference, Sharding | None],
) -> Spread:
    """Compare fingerprints, then recompute a few rows with the reference's own model."""
    (reference, how), (name, precision) = source, (config.reference_model, config.precision)
    own = source_of(config)
    if name is None or (name == config.model and own.adapter is None):
        check_reference(reference, weights, own, precision)
    else:
        held = reference.manifest  # it need not be held as the policy is
        other = ModelSource(name, weights=held.weights, quantize=held.quantize)
        loaded = load_part(other, device=device_of(policy.model), how=how)
        options = PolicyOptions(backend=config.attention)
        prepare = partial(fill, name=find_parts(other).base, how=how)
        policy, _ = make_policy(
            loaded, train.pairs, options=options, precision=precision, prepare=prepare
        )
        check_reference(reference, WeightsId.of(other, loaded), other, precision)
    return spot_check(policy, train.pairs, reference, "train")


def _open_data(config: TrainConfig, accelerator: Accelerator) -> tuple[Build, TrainConfig]:
    """Return the build, and the config with its evaluation split resolved.

    A dataset on the Hub is pinned to its exact commit.
    """
    path = config.data
    if is_hub_name(str(config.data)):
        with accelerator.main_process_first():  # one process fetches it
            path, pinned = pull_cached(str(config.data))
        config = config.model_copy(update={"data": Path(pinned)})
    build = open_lazily(path)
    main = _eval_split(build, config.eval_split)
    for name in config.eval_splits:
        if _eval_split(build, name) == main:
            problem, remedy = f"evaluates {name!r} twice", "leave it out of eval_splits"
            raise UsageError("T124", str(build.path), problem, remedy)
    return build, config.model_copy(update={"eval_split": main})


def _eval_split(build: Build, wanted: str | None) -> str | None:
    """Return the split to evaluate on; `auto` takes the one of the highest rank."""
    others = [split for split in build.splits if split != "train"]
    if wanted == "auto" and others:
        return max(others, key=rank_of)
    if wanted is not None and wanted not in build.splits:
        what = "no split but train" if wanted == "auto" else f"no split {wanted!r}"
        remedy = f"it has {', '.join(build.splits)}; set eval_split to one of them or to null"
        raise UsageError("T124", str(build.path), f"has {what}", remedy)
    return wanted
