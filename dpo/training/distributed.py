"""Processes of a run as accelerate sets them up: weights whole on each, or sharded (FSDP2).

accelerate enables FSDP only on GPUs, while torch can shard over gloo too. A launch on CPUs that
asks for FSDP gets it here, so that the tests run the same code as GPUs.

A local shard is the rows [start, stop) of a tensor's first axis that a process holds. FSDP2 shards
every weight by its first axis, in equal chunks of which the last ones may be shorter or empty
(`torch.chunk`). A tensor that is not sharded is one shard with all rows.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dpo.config import TrainConfig
from dpo.errors import UsageError

_KNOWN = {
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
    DistributedType.MULTI_NPU,
    DistributedType.FSDP,
}


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return the accelerator of a run. Raises UsageError (T170) for an unsupported launch."""
    AcceleratorState._reset_state()  # a second run in one process may ask for another precision
    accelerator = Accelerator(
        # accelerate's fp16 needs a GPU and scales the loss itself; `LossScale` runs on any device
        mixed_precision="bf16" if config.mixed_precision == "bf16" else "no",
        log_with=list(config.trackers) or None,
        project_dir=config.out,
    )
    state = accelerator.state
    asks = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asks and accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()
        if config.mixed_precision == "bf16":
            plugin.set_mixed_precision("bf16")
        state.fsdp_plugin = plugin
        state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    kind = accelerator.distributed_type
    if kind not in _KNOWN or (kind == DistributedType.FSDP and not is_sharded(accelerator)):
        name = "FSDP version 1" if kind == DistributedType.FSDP else str(kind.value)
        remedy = "launch with pipelines/accelerate/ddp.yaml, or fsdp2.yaml to shard the weights"
        raise UsageError("T170", "accelerate", f"{name} is not supported", remedy)
    if kind == DistributedType.FSDP and config.optimizer.name == "adamw_8bit":
        problem = "bitsandbytes does not shard its moments"
        remedy = "use adamw, whose moments are sharded, or ddp.yaml"
        raise UsageError("T172", "optimizer.name: adamw_8bit", problem, remedy)
    return accelerator


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether each process holds only a part of the weights."""
    return bool(accelerator.is_fsdp2)


def num_pieces(model: torch.nn.Module) -> int:
    """Return the number of processes that hold shards. Raises UsageError (T171) for grids."""
    meshes = {p.device_mesh for p in model.parameters() if isinstance(p, DTensor)}
    if any(mesh.ndim != 1 for mesh in meshes):
        problem = "weights are sharded over a grid of processes, which checkpoints do not support"
        raise UsageError("T171", "accelerate", problem, "shard over all processes in one dimension")
    return max((mesh.size() for mesh in meshes), default=1)


def local_shard(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_bounds(tensor: Tensor) -> tuple[int, int]:
    """Return the bounds of those rows: [start, stop)."""
    rows = tensor.shape[0]
    if not isinstance(tensor, DTensor):
        return 0, rows
    chunk = -(-rows // tensor.device_mesh.size())
    start = min(tensor.device_mesh.get_local_rank() * chunk, rows)
    return start, min(start + chunk, rows)


def from_local_shard(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return rows as the local shard of a tensor that is sharded like `tensor`."""
    if not isinstance(tensor, DTensor):
        return rows
    return DTensor.from_local(
        rows.to(tensor.device),
        tensor.device_mesh,
        tensor.placements,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def reshard_root(policy: torch.nn.Module) -> None:
    """Reshard the root module, whose weights FSDP2 keeps gathered after a forward."""
    if isinstance(policy, FSDPModule):
        policy.reshard()


@contextmanager
def whole_root(policy: torch.nn.Module) -> Iterator[None]:
    """Gather the root module of sharded weights, so that the model inside it can be called."""
    if isinstance(policy, FSDPModule):
        policy.unshard()
    yield
    reshard_root(policy)


def whole_weights(model: torch.nn.Module) -> dict[str, Any] | None:
    """Gather the state dict of a sharded model on the first process; all processes must call this.

    None if the model is not sharded.
    """
    if not any(isinstance(weight, DTensor) for weight in model.parameters()):
        return None
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = get_model_state_dict(model, options=options)
    first = {id(own): name for name, own in reversed(model.state_dict(keep_vars=True).items())}
    for name, own in model.state_dict(keep_vars=True).items():
        if whole:  # a tied head is its embedding, so that it is saved once
            whole[name] = whole[first[id(own)]]
    return whole
