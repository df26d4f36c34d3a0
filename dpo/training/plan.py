"""The plan of a run, printed before its weights are loaded: its memory, by parts, and its sizes.

Settings that are null are chosen here by the device, and never by what happens to be free, so that
a run that resumes chooses the same.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from dpo.config import PACK_ON_CPU, LoraSettings, TrainConfig
from dpo.data.pairs import Pairs
from dpo.data.sampler import Order, num_steps, pack_units
from dpo.model.attention import backend_of
from dpo.model.cpu_products import is_faster
from dpo.model.kept import Kept, count_kept
from dpo.model.load import freeze_towers, held_in, load_config
from dpo.model.lora import add_lora
from dpo.model.quantized import is_quantized
from dpo.model.sharded import Sharding, layers_of, stand_ins
from dpo.model.source import ModelSource, find_parts, read_adapter_config
from dpo.model.weights import model_folder, weight_files
from dpo.precision import HELD, PRODUCTS
from dpo.training.mfu import work_of

GB = 1e9
LARGEST_PACK = 65_536
FULL = 0.9
"""Share of a device's memory that the plan fills."""
MOMENTS = {"adamw": 8.0, "rmsprop": 4.0, "adamw_8bit": 2.0}
"""Bytes of moments per trained weight; other optimizers are counted as AdamW."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in NF4: 4 bits, 8 for the scale of 64, and 32 for the scale of 256 scales."""


_HOLES = 1.5
"""Memory that is freed during a pass on a CPU and that glibc cannot use again between blocks that
stay, over the outputs of adapters' layers and weights that are there only while a layer runs.
Measured with glibc 2.36 and a model of 135M."""
_STEPPED = 4 + 4 + 4
"""Bytes per weight while it is stepped in float32: itself, its gradient, and random numbers."""


class Place(NamedTuple):
    """Memory of the device that runs a process, in bytes."""

    device: torch.device
    total: int
    free: int
    used: int = 0
    """What the process takes already, on a CPU: libraries and data."""


def place_of(device: torch.device) -> Place:
    """Return the memory of a device; the processes of one machine share that of its CPUs."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Place(device, total, free)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    memory, used = psutil.virtual_memory(), psutil.Process().memory_info().rss
    limit, rest = _container(memory.total)
    total, free = min(memory.total, limit), min(memory.available, rest)
    return Place(device, total // here, free // here + used, used)


def peak_of(device: torch.device) -> int:
    """Return the most memory that this process has taken: of its GPU, or resident in a CPU's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _container(most: int) -> tuple[int, int]:
    """Return the memory that a container (cgroup v2) has, and what is free of it."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text(encoding="utf-8"))
        return limit, limit - int((folder / "memory.current").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no cgroup, or "max"
        return most, most


class MemoryPlan(NamedTuple):
    """Memory of one process, in bytes."""

    process: int
    weights: int
    gathered: int
    """Weights that are gathered from other processes while they are used."""
    gradients: int
    moments: int
    step: int
    """Copies in float32 of the largest weight that is held in bfloat16, while it is stepped."""
    pack: int

    @property
    def total(self) -> int:
        return sum(self)

    def __str__(self) -> str:
        parts = [f"{name} {size / GB:,.2f}" for name, size in self._asdict().items() if size]
        return ", ".join(parts)


class Plan(NamedTuple):
    """Memory and sizes of a run."""

    config: TrainConfig
    """The run's config, with what the device decides."""
    memory: MemoryPlan
    lines: tuple[str, ...]
    """Messages that state the plan."""


class Run(NamedTuple):
    """A run before its weights are loaded, and where it runs."""

    config: TrainConfig
    source: ModelSource
    pairs: Pairs
    order: Order
    place: Place
    how: Sharding | None = None
    ranks: int = 1


def make_plan(model: PreTrainedModel, run: Run) -> Plan:
    """Return the plan of a run of a model, which is on `meta` and unusable afterwards."""
    freeze_towers(model)
    _adapt(model, run)
    sizes = _Sizes.of(model, run)
    kept = count_kept(
        model, device=run.place.device, precision=run.config.precision, dtypes=sizes.dtypes
    )
    if run.how is not None:  # sharded weights are gathered again for the backward pass
        kept = kept._replace(copies=0)
    if run.place.device.type == "cpu":
        per_token = kept.per_token + _HOLES * _adapted_outputs(model) * kept.width
        copies = kept.copies + int(_HOLES * sizes.passing * kept.width)
        kept = kept._replace(per_token=per_token, copies=copies)
    can_checkpoint = bool(model.supports_gradient_checkpointing)
    config, chosen = _choose(run, sizes.memory, kept, can_checkpoint=can_checkpoint)
    run = run._replace(config=config)
    tokens = max(run.pairs.largest_size, config.pack_size)
    pack = kept.pack(tokens, checkpointed=config.checkpoints)
    memory = sizes.memory._replace(pack=pack)
    lines = (_say_model(sizes, run), _say_steps(run), *_say_memory(memory, run.place), *chosen)
    return Plan(config, memory, tuple(f"plan: {line}" for line in lines))


def _adapt(model: PreTrainedModel, run: Run) -> None:
    """Add the run's adapter, without values."""
    config = run.config
    if config.lora is None:
        return
    settings, adapter = config.lora, find_parts(run.source).adapter
    if adapter is not None:
        own = read_adapter_config(adapter)
        targets, kind = own["target_modules"], {"dora": "use_dora", "rslora": "use_rslora"}
        shape = {name: bool(own.get(key)) for name, key in kind.items()}
        shape |= {"r": own["r"], "targets": targets}
        settings = LoraSettings.model_validate(shape)
    with stand_ins(model):
        add_lora(model, settings, seed=config.seed)


class _Sizes(NamedTuple):
    """Sizes of a model's weights as the run holds them."""

    parameters: int
    trained: int
    dtypes: dict[int, torch.dtype]
    """Dtype of each weight in products, by its id."""
    memory: MemoryPlan
    passing: int
    """Weights that are there only while a layer runs: dequantized, or gathered."""

    @classmethod
    def of(cls, model: PreTrainedModel, run: Run) -> "_Sizes":
        held = HELD[held_in(run.source)]
        folded = _quantized_weights(model, run.source)
        adapters = {id(w) for name, w in model.named_parameters() if "lora_" in name}
        weights = list(model.parameters())  # tied ones once
        dtypes = {id(w): torch.float32 if id(w) in adapters else held for w in weights}
        half = PRODUCTS[run.config.precision]
        dtypes |= dict.fromkeys(folded, half if half != torch.float32 else held)
        bytes_of = {key: float(dtype.itemsize) for key, dtype in dtypes.items()} | folded
        trained = [w for w in weights if w.requires_grad]
        pieces = 1 if run.how is None else run.ranks
        copies = 2 if run.how is None and run.ranks > 1 else 1  # DDP's buckets
        moments = MOMENTS.get(run.config.optimizer.name, MOMENTS["adamw"])
        memory = MemoryPlan(
            process=run.place.used,
            weights=int(sum(w.numel() * bytes_of[id(w)] for w in weights) / pieces),
            gathered=_gathered(model, run),
            gradients=int(_bytes(trained, dtypes) * copies / pieces),
            moments=int(sum(w.numel() for w in trained) * moments / pieces),
            step=_STEPPED * max((w.numel() for w in trained if _is_half(dtypes[id(w)])), default=0),
            pack=0,
        )
        passing = _numel(weight for weight in weights if id(weight) in folded)
        if run.how is not None and run.how.frees:
            passing = sum(_numel(m.parameters()) for m in layers_of(model, run.how.layers))
        return cls(_numel(weights), _numel(trained), dtypes, memory, passing)


def _is_half(dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16


def _adapted_outputs(model: PreTrainedModel) -> int:
    """Return the number of outputs of all layers with an adapter, for a token."""
    layers = (layer for layer in model.modules() if hasattr(layer, "lora_A"))
    outputs: list[Any] = [getattr(layer, "out_features", 0) for layer in layers]
    return sum(outputs)


def _bytes(weights: Iterable[Tensor], dtypes: Mapping[int, torch.dtype]) -> int:
    return sum(weight.numel() * dtypes[id(weight)].itemsize for weight in weights)


def _quantized_weights(model: PreTrainedModel, source: ModelSource) -> dict[int, float]:
    """Return the bytes per number of weights in 4 or 8 bits, by their ids."""
    base = find_parts(source).base
    is_stored = is_quantized(load_config(base))
    if source.quantize is None and not is_stored:
        return {}
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    folded = [w for w in linear if w is not head.weight and not w.requires_grad]
    each = NF4_BYTES if source.quantize == "nf4" else 1.0
    if is_stored:
        stored = sum(file.stat().st_size for file in weight_files(model_folder(base)))
        others = sum(w.numel() for w in model.parameters()) - sum(w.numel() for w in folded)
        rest = stored - others * HELD[held_in(source)].itemsize
        each = max(NF4_BYTES, rest / sum(w.numel() for w in folded))
    return dict.fromkeys(map(id, folded), each)


def _gathered(model: PreTrainedModel, run: Run) -> int:
    """Return the bytes of gathered weights: the root, which stays, and the largest layer.

    Each is in torch's buffer too until it is copied, and its gradients are whole until they are
    reduced.
    """
    if run.how is None:
        return 0
    layers = [_numel(layer.parameters()) for layer in layers_of(model, run.how.layers)]
    root = _numel(model.parameters()) - sum(layers)
    products = PRODUCTS[run.config.precision].itemsize
    layer = max(layers) if run.how.frees else sum(layers)
    grads = 4 * max(root, max(layers)) if run.config.lora is None else 0
    return 2 * 4 * root + 2 * products * layer + grads


def _numel(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in {id(w): w for w in weights}.values())


def _choose(
    run: Run, fixed: MemoryPlan, kept: Kept, *, can_checkpoint: bool
) -> tuple[TrainConfig, list[str]]:
    """Return the config with what is null in it chosen, and a message for each choice."""
    config, place, chosen = run.config, run.place, []
    room, longest = int(FULL * place.total) - fixed.total, run.pairs.largest_size
    update: dict[str, Any] = {}
    if config.gradient_checkpointing is None:
        least = max(longest, config.pack_tokens or PACK_ON_CPU)
        needed = can_checkpoint and kept.pack(least, checkpointed=False) > room
        update["gradient_checkpointing"] = needed
        if needed:
            chosen.append(f"gradient_checkpointing, as a pack of {least:,} tokens needs it")
    checkpointed = update.get("gradient_checkpointing", config.checkpoints)
    if config.pack_tokens is None:
        tokens = PACK_ON_CPU
        if place.device.type != "cpu":
            tokens = _largest(kept, room, checkpointed=checkpointed)
            chosen.append(f"pack_tokens {tokens:,}, by the device's memory")
        update["pack_tokens"] = tokens
    return config.model_copy(update=update), chosen


def _largest(kept: Kept, room: int, *, checkpointed: bool) -> int:
    """Return the tokens of the largest pack that fits, in steps of 1,024."""
    sizes = range(LARGEST_PACK, PACK_ON_CPU, -PACK_ON_CPU)
    fitting = (size for size in sizes if kept.pack(size, checkpointed=checkpointed) <= room)
    return next(fitting, PACK_ON_CPU)


def _say_model(sizes: _Sizes, run: Run) -> str:
    config, device = run.config, run.place.device
    products = PRODUCTS[config.precision]
    rate = config.lora.dropout if config.lora and config.dropout else 0.0
    backend = backend_of(config.attention, device, products, dropout=rate)
    held = run.source.quantize or held_in(run.source)
    name = str(products).removeprefix("torch.")
    if device.type == "cpu" and held == name == "float32" and is_faster():
        name = f"{name} by oneDNN"
    each = "each has all weights" if run.how is None else "each holds a part of the weights"
    processes = f"{run.ranks:,} processes, {each}" if run.ranks > 1 else "one process"
    return (
        f"{sizes.parameters:,} parameters in {held}, {sizes.trained / sizes.parameters:.3%}"
        f" of them trained; products in {name}, attention by {backend}; {processes} on"
        f" {device.type}"
    )


def _say_steps(run: Run) -> str:
    config, pairs, order = run.config, run.pairs, run.order
    steps, first = num_steps(config, len(order)), order.step(1)
    tokens = work_of(pairs, first)
    packs = pack_units(pairs, first, budget=config.pack_size, ranks=run.ranks)
    count = sum(bool(rows) for of_rank in packs for rows in of_rank)
    unit = config.batch_unit
    return (
        f"{len(pairs):,} pairs; {steps:,} steps of {config.global_batch_size:,} {unit}; the first"
        f" has {tokens.tokens:,} tokens ({tokens.plain:,} if prompts were not shared) in"
        f" {count:,} packs of at most {config.pack_size:,}"
    )


def _say_memory(memory: MemoryPlan, place: Place) -> list[str]:
    line = f"memory of each process {memory.total / GB:,.2f} GB: {memory}"
    free = f"{place.free / GB:,.2f} GB are free"
    if memory.total <= place.free:
        return [f"{line}; {free}"]
    return [f"{line}", f"this may not fit, as only {free}; {_advise(memory)}"]


def _advise(memory: MemoryPlan) -> str:
    """Return what lowers the largest part."""
    advice = {
        "weights": "lora with quantize: nf4, or fsdp2.yaml, lowers weights",
        "gathered": "more memory for each process is needed to gather a layer",
        "gradients": "lora, weights: bfloat16 or fsdp2.yaml lowers gradients",
        "moments": "optimizer.name adamw_8bit, lora or fsdp2.yaml lowers moments",
        "step": "lora or fsdp2.yaml lowers what a step copies",
        "pack": "gradient_checkpointing: true or a smaller pack_tokens lowers the pack",
    }
    sizes = memory._asdict() | {"process": 0}
    return advice[max(sizes, key=sizes.__getitem__)]
