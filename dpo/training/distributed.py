"""Processes of a command as accelerate or torchrun starts them: weights whole on each, or sharded.

accelerate connects the processes; the settings of its FSDP are read here, and the weights are
sharded by `dpo.model.sharded` on any device, so that the tests run the same code as GPUs.

A local shard is the rows [start, stop) of a tensor's first axis that a process holds. FSDP2 shards
every weight by its first axis, in equal chunks of which the last ones may be shorter or empty
(`torch.chunk`). A tensor that is not sharded is one shard with all rows.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import click
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.model.load import best_device, checkpoint_layers
from dpo.model.lora import add_lora
from dpo.model.policy import Policy
from dpo.model.sharded import Sharding, reshard
from dpo.precision import PRODUCTS, precision_of

_KNOWN = {
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.MULTI_XPU,
    DistributedType.MULTI_NPU,
}
_USE = "ACCELERATE_USE_FSDP"
_FREES = {"true": True, "false": False, "full_shard": True, "shard_grad_op": False}
"""Values of fsdp_reshard_after_forward, and whether they free a layer after its forward pass."""


def join_processes() -> PartialState:
    """Connect the processes of a launch. Raises UsageError (T170, T171) if it is unsupported."""
    _refuse_launch(os.environ)
    wants_cpu = _setting(os.environ, "ACCELERATE_USE_CPU", "false") == "true"
    state = PartialState(cpu=wants_cpu or best_device().type == "cpu")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.distributed_type not in _KNOWN:
        raise _unsupported(str(state.distributed_type.value))
    if state.num_processes != started:
        name = f"a start of {started:,} processes that are not connected"
        raise _unsupported(name)
    return state


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return the accelerator of a run. Raises UsageError (T170 to T172) for an unsupported one."""
    AcceleratorState._reset_state()  # a second run in one process may ask for another precision
    state = join_processes()
    if _asks(os.environ) and config.optimizer.name == "adamw_8bit":
        problem = "bitsandbytes does not shard its moments"
        remedy = "use adamw, whose moments are sharded, or ddp.yaml"
        raise UsageError("T172", "optimizer.name: adamw_8bit", problem, remedy)
    with _without_fsdp():  # accelerate would shard in its own way
        return Accelerator(
            cpu=state.device.type == "cpu",
            # accelerate's fp16 needs a GPU and scales the loss itself; `LossScale` runs anywhere
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            log_with=list(config.trackers) or None,
            project_dir=config.out,
        )


def with_precision(config: TrainConfig) -> TrainConfig:
    """Return the config with the precision that the device has by default, if it names none."""
    chosen = config.mixed_precision or precision_of(join_processes().device)
    return config.model_copy(update={"mixed_precision": chosen})


def require_one_process(command: str) -> None:
    """Refuse a launch of several processes of a command that runs in one (T170)."""
    if (started := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        problem = f"{command} runs in one process, and {started:,} were started"
        raise UsageError("T170", "the launch", problem, f"start {command} itself")


@contextmanager
def one_error_of_all() -> Iterator[None]:
    """Let only the first process of a launch that fails report its error; the others exit.

    A process that fails ends the collectives of all others, whose errors would hide the cause.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, click.exceptions.Exit) or _is_first_to_fail(os.environ):
            raise
        raise SystemExit(getattr(error, "exit_code", 1)) from error


def _is_first_to_fail(environment: Mapping[str, str]) -> bool:
    """Return whether no other process of this start has failed, as the launcher's store knows."""
    rank, attempt = environment["RANK"], environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    try:
        wait = timedelta(seconds=5)
        store = dist.TCPStore(host, port, is_master=False, timeout=wait)  # type: ignore[attr-defined]
        first = store.compare_set(f"dpo/failed/{attempt}", "", rank)
    except RuntimeError:  # the process that has the store is gone
        return True
    return bool(first.decode() == rank)


def sharding() -> Sharding | None:
    """Return how the launch shards weights, or None if each process holds all of them."""
    if not (_asks(os.environ) and dist.is_initialized()):
        return None
    names = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    return Sharding(
        init_device_mesh(PartialState().device.type, (dist.get_world_size(),)),
        frees=_FREES[_setting(os.environ, "FSDP_RESHARD_AFTER_FORWARD", "true")],
        offloads=_setting(os.environ, "FSDP_OFFLOAD_PARAMS", "false") == "true",
        layers=tuple(name.strip() for name in names.split(",") if name.strip()),
    )


def _asks(environment: Mapping[str, str]) -> bool:
    return _setting(environment, _USE, "false") == "true"


def _setting(environment: Mapping[str, str], name: str, default: str) -> str:
    return environment.get(name, default).strip().lower()


def _refuse_launch(environment: Mapping[str, str]) -> None:
    """Refuse settings of accelerate that would have no effect here (T170, T171)."""
    if _setting(environment, "ACCELERATE_USE_PARALLELISM_CONFIG", "false") == "true":
        problem = "weights would be sharded over a grid of processes, which is not supported"
        raise UsageError("T171", "accelerate", problem, "shard over all processes in one dimension")
    if not _asks(environment):
        return
    if _setting(environment, "FSDP_VERSION", "1") != "2":
        raise _unsupported("FSDP version 1")
    wrap = _setting(environment, "FSDP_AUTO_WRAP_POLICY", "transformer_based_wrap")
    if wrap not in ("transformer_based_wrap", ""):
        raise _unsupported(f"fsdp_auto_wrap_policy {wrap.upper()}")
    if _setting(environment, "FSDP_RESHARD_AFTER_FORWARD", "true") not in _FREES:
        value = environment["FSDP_RESHARD_AFTER_FORWARD"]
        raise _unsupported(f"fsdp_reshard_after_forward: {value!a}")
    if _setting(environment, "FSDP_ACTIVATION_CHECKPOINTING", "false") == "true":
        problem = "fsdp_activation_checkpointing has no effect"
        remedy = "set gradient_checkpointing in the training config"
        raise UsageError("T170", "accelerate", problem, remedy)


def _unsupported(name: str) -> UsageError:
    remedy = "launch with pipelines/accelerate/ddp.yaml, or fsdp2.yaml to shard the weights"
    return UsageError("T170", "accelerate", f"{name} is not supported", remedy)


@contextmanager
def _without_fsdp() -> Iterator[None]:
    before = os.environ.pop(_USE, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[_USE] = before


def for_training(
    policy: Policy, config: TrainConfig, how: Sharding | None
) -> tuple[Policy, tuple[str, ...]]:
    """Return the policy with what is in the model only in training, and a message about it."""
    change, products = partial(_change, config=config), PRODUCTS[config.precision]
    if how is None:
        notice = change(policy.model)
    else:
        policy, notice = reshard(policy, config.model, how, change=change, products=products)
    return policy, () if notice is None else (notice,)


def _change(model: PreTrainedModel, *, config: TrainConfig) -> str | None:
    """Add what a run trains or needs beyond the model; return a message about it."""
    lora = config.lora
    notice = None if lora is None else add_lora(model, lora, seed=config.seed)
    if config.checkpoints:
        checkpoint_layers(model, place=config.model)
    return notice


def is_sharded(policy: torch.nn.Module) -> bool:
    """Return whether each process holds only a part of the weights."""
    return isinstance(policy, FSDPModule)


def num_pieces(model: torch.nn.Module) -> int:
    """Return the number of processes that hold shards."""
    meshes = (p.device_mesh for p in model.parameters() if isinstance(p, DTensor))
    return max((mesh.size() for mesh in meshes), default=1)


def local_shard(tensor: Tensor) -> Tensor:
    """Return the rows of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its rows; all processes must call this if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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
    """Gather what training changed of a sharded model on the first process, tensor by tensor.

    All processes must call this; the others get an empty dict. None if the model is not sharded.
    """
    if not any(isinstance(weight, DTensor) for weight in model.parameters()):
        return None
    frozen = {id(weight) for weight in model.parameters() if not weight.requires_grad}
    found: dict[str, Any] = {}
    seen: dict[int, str] = {}
    for name, own in model.state_dict(keep_vars=True).items():
        if id(own) in frozen:
            continue
        if id(own) in seen:  # a tied head is its embedding, so that it is saved once
            tensor = found.get(seen[id(own)])
        else:
            tensor = whole(own.detach()).cpu()
            seen[id(own)] = name
        if dist.get_rank() == 0:
            found[name] = tensor
    return found
