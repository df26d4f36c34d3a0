"""Local shards: the rows [start, stop) of a tensor's first axis that a process holds.

FSDP2 shards every weight by its first axis, in equal chunks of which the last ones may be shorter
or empty (`torch.chunk`). A tensor that is not sharded is one shard with all rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dpo.errors import UsageError


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
