"""Processes of a run as accelerate sets them up: weights whole on each, or sharded (FSDP2).

accelerate enables FSDP only on GPUs, while torch can shard over gloo too. A launch on CPUs that
asks for FSDP gets it here, so that the tests run the same code as GPUs.
"""

import os

from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState

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
