"""Weights sharded over processes (FSDP2): each process reads, holds and updates its own rows.

A unit is gathered while it runs, then freed: a layer, or the root, which is what no layer holds
(embeddings, last norm, head). With a precision, the matrices that autocast would cast are gathered
in it; all else keeps its dtype, and so do inputs and outputs. So a pass computes what it computes
in one process, and the root's log-probs stay float32.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import LoadStateDictConfig
from transformers.pytorch_utils import Conv1D

from dpo.errors import UsageError
from dpo.model.load import (
    check_model,
    freeze_towers,
    held_in,
    load_config,
    load_model,
    switch_off_dropout,
)
from dpo.model.policy import Policy
from dpo.model.quantized import is_quantized
from dpo.model.source import ModelSource, find_parts
from dpo.model.stored import stored_tensors
from dpo.model.weights import check_finite, model_folder, weight_files


class Sharding(NamedTuple):
    """How weights are sharded."""

    mesh: DeviceMesh
    frees: bool = True
    """Whether a layer is freed after its forward pass, and gathered again for the backward pass."""
    offloads: bool = False
    """Whether the host holds the rows, their gradients and moments, and not the device."""
    layers: tuple[str, ...] = ()
    """Class names of the layers; empty: those that the model's class names."""

    @property
    def device(self) -> torch.device:
        """Return the device that runs the model."""
        return torch.device(self.mesh.device_type)

    @property
    def home(self) -> torch.device:
        """Return the device that holds the rows."""
        return torch.device("cpu") if self.offloads else self.device


def model_without_weights(name: str, *, dropout: bool = False) -> PreTrainedModel:
    """Return the checked model on `meta`, with its buffers computed as its config says."""
    model = check_model(name)
    with init_empty_weights(include_buffers=False):
        buffers = dict(type(model)(deepcopy(model.config)).named_buffers())
    for module, short, key in _named_buffers(model):
        module._buffers[short] = buffers[key]
    freeze_towers(model)
    if not dropout:
        switch_off_dropout(model)
    model.train(mode=False)
    return model


def _named_buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield the module of each buffer, and the buffer's short and whole name."""
    for path, module in model.named_modules():
        for short, buffer in module._buffers.items():
            if buffer is not None:
                yield module, short, f"{path}.{short}" if path else short


def load_part(
    source: ModelSource, *, device: torch.device, how: Sharding | None, dropout: bool = False
) -> PreTrainedModel:
    """Load a model; if it will be sharded, without weights, which `fill` reads.

    Raises UsageError (T176) for what cannot be sharded.
    """
    if how is None:
        return load_model(source, dropout=dropout, device=device)
    parts = find_parts(source)
    is_plain = source.quantize is None and not is_quantized(load_config(parts.base))
    if not is_plain or parts.adapter is not None or held_in(source) != "float32":
        problem = "can be sharded only in float32, without quantization or an adapter from disk"
        remedy = "launch with ddp.yaml, or leave weights, quantize and lora.start out"
        raise UsageError("T176", source.name, problem, remedy)
    return model_without_weights(source.name, dropout=dropout)


def fill(policy: Policy, name: str, how: Sharding | None) -> None:
    """Shard a policy without weights, and read its rows; a no-op if nothing is sharded."""
    if how is not None:
        shard(policy, how)
        read_rows(policy, name, how)
        check_finite(name, policy.model)


def reshard(
    policy: Policy,
    name: str,
    how: Sharding,
    *,
    change: Callable[[PreTrainedModel], str | None],
    products: torch.dtype,
) -> tuple[Policy, str | None]:
    """Return a policy for training with the rows of the checked one, and what `change` returns.

    `change` adds an adapter and what else is in the model only while it is trained.
    """
    if isinstance(policy, FSDPModule):
        policy.reshard()  # the root, which stays gathered after a forward pass
    model = model_without_weights(name, dropout=policy.options.dropout)
    with stand_ins(model):
        notice = change(model)
    trained = Policy(model, shared=policy.shared, options=policy.options)
    trained.form = policy.form
    trained.share(shared=policy.shared, passes=policy.passes)
    is_dora = any(getattr(part, "lora_magnitude_vector", None) for part in model.modules())
    # DoRA reads a matrix outside its forward pass, when only its layer is sure to be gathered
    shard(trained, how, products=None if is_dora else products)
    _take_rows(trained, policy, how)
    _measure_magnitudes(model)
    return trained, notice


def shard(policy: Policy, how: Sharding, *, products: torch.dtype | None = None) -> None:
    """Shard a policy in place; `products` is the dtype in which matrices are gathered."""
    offload = CPUOffloadPolicy(pin_memory=how.device.type != "cpu")
    place: Callable[..., Any] = partial(
        fully_shard, mesh=how.mesh, offload_policy=offload if how.offloads else OffloadPolicy()
    )
    as_held = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    cast = MixedPrecisionPolicy(products, torch.float32, cast_forward_inputs=False)
    for layer in layers_of(policy.model, how.layers):
        matrices = [part for part in layer.modules() if isinstance(part, nn.Linear | Conv1D)]
        if products is not None and matrices:
            place(matrices, mp_policy=cast, reshard_after_forward=how.frees)
        place(layer, mp_policy=as_held, reshard_after_forward=how.frees)
    place(policy, mp_policy=as_held)
    register_fsdp_forward_method(policy, "run")


def layers_of(model: PreTrainedModel, names: tuple[str, ...]) -> list[nn.Module]:
    """Return the layers, inner ones first. Raises UsageError (T174)."""
    known = {type(module).__name__ for module in model.modules()}
    if missing := sorted(set(names) - known):
        problem = f"{type(model).__name__} has no layer {', '.join(missing)}"
        remedy = "leave fsdp_transformer_layer_cls_to_wrap out: layers are found"
        raise UsageError("T174", "accelerate", problem, remedy)
    wanted = set(names or model._no_split_modules or ())
    layers = [
        module
        for module in model.modules()
        if type(module).__name__ in wanted
        or (not names and isinstance(module, GradientCheckpointingLayer))
    ]
    if not layers:
        problem = f"{type(model).__name__} names no layers by which its weights could be sharded"
        remedy = "name them as fsdp_transformer_layer_cls_to_wrap, or launch with ddp.yaml"
        raise UsageError("T174", "accelerate", problem, remedy)
    return layers[::-1]


def read_rows(policy: Policy, name: str, how: Sharding) -> None:
    """Read this process's rows of a sharded policy's weights, and no others, from a checkpoint."""
    model = policy.model
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in weight_files(model_folder(name))]
        rows = {key: tensor for file in files for key, tensor in stored_tensors(file).items()}
        mapping: Any = get_model_conversion_mapping(model)
        options = LoadStateDictConfig(
            dtype=model.dtype, weight_mapping=mapping, device_map={"": how.home}
        )
        found = convert_and_load_state_dict_in_model(model, rows, options)[0]
    model.tie_weights(missing_keys=found.missing_keys, recompute_mapping=False)
    _place_buffers(model, how.device)


def _take_rows(policy: Policy, source: Policy, how: Sharding) -> None:
    """Give a sharded policy the rows of another, which may have no adapter, without a copy."""
    held = source.model.state_dict(keep_vars=True)
    taken: dict[int, nn.Parameter] = {}
    for path, module in policy.model.named_modules():
        for short, weight in module._parameters.items():
            if weight is None:
                continue
            key = f"{path}.{short}".replace(".base_layer.", ".")
            if key in held and id(weight) not in taken:
                taken[id(weight)] = _like(held[key], weight)
            if id(weight) in taken:
                module._parameters[short] = taken[id(weight)]
    for module, short, key in _named_buffers(policy.model):
        module._buffers[short] = held.get(key, module._buffers[short])
    _place_buffers(policy.model, how.device)


@contextmanager
def stand_ins(model: PreTrainedModel) -> Iterator[None]:
    """Let weights without values look real, so that an adapter is initialised as next to real ones.

    Each is one zero, expanded to the weight's shape.
    """
    empty = [
        (module, short, weight)
        for module in model.modules()
        for short, weight in module._parameters.items()
        if weight is not None
    ]
    for module, short, weight in empty:
        zero = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
        module._parameters[short] = nn.Parameter(zero, requires_grad=weight.requires_grad)
    yield
    for module, short, weight in empty:
        now = module._parameters[short]
        weight.requires_grad_(now is not None and now.requires_grad)
        module._parameters[short] = weight


@torch.no_grad()
def _measure_magnitudes(model: PreTrainedModel) -> None:
    """Set the magnitudes of a fresh DoRA adapter to the norms of the sharded weights."""
    for layer in model.modules():
        for vector in getattr(layer, "lora_magnitude_vector", {}).values():
            base: Any = layer.base_layer
            axis = 0 if isinstance(base, Conv1D) else 1
            norms: Any = torch.linalg.vector_norm(base.weight.float(), dim=axis)
            rows = norms.redistribute(placements=vector.weight.placements).to_local()
            vector.weight.to_local().copy_(rows)


def _like(held: Tensor, weight: nn.Parameter) -> nn.Parameter:
    """Return the rows of a sharded weight as a parameter that is trained if `weight` is."""
    assert isinstance(held, DTensor)
    rows = DTensor.from_local(
        held.to_local().detach(),
        held.device_mesh,
        held.placements,
        shape=held.shape,
        stride=held.stride(),
    )
    return nn.Parameter(rows, requires_grad=weight.requires_grad)


def _place_buffers(model: nn.Module, device: torch.device) -> None:
    for module, short, _ in _named_buffers(model):
        module._buffers[short] = module._buffers[short].to(device)  # type: ignore[union-attr]
