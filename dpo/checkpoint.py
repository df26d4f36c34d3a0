"""A run's state on disk: weights and optimizer as safetensors, the rest as JSON, no pickle.

    OUT/checkpoints/step-00000040/
      weights.safetensors  optimizer.safetensors  state.json

`state.json` is written last and seals the other two; a folder without it is no checkpoint. The
order of pairs, the learning rate and the seeds of dropout are functions of the step, so nothing of
them has to be kept.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Literal

import orjson
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefdata.store.canonical import hash_json, to_json
from prefdata.store.commit import FileSeal, commit_file, fsync_path, seal_file, write_bytes

_FILES = ("weights.safetensors", "optimizer.safetensors")


class State(BaseModel):
    """What a checkpoint is of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["dpo-checkpoint"] = "dpo-checkpoint"
    format_version: Literal[1] = 1
    step: int
    skipped: int = 0
    """Steps up to here that were left out because their numbers were not finite."""
    fingerprint: str
    files: dict[str, tuple[int, str]]
    hash: str = Field(default="")

    def own_hash(self) -> str:
        return hash_json(self.model_dump(mode="json", exclude={"hash"}))


def save_checkpoint(
    folder: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    skipped: int,
    fingerprint: str,
) -> Path:
    """Commit the state after `step`; returns the checkpoint's folder."""
    path = folder / f"step-{step:08d}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "state.json").unlink(missing_ok=True)
    tensors = (unique_tensors(model), _optimizer_tensors(optimizer))
    seals: dict[str, FileSeal] = {}
    for name, values in zip(_FILES, tensors, strict=True):
        seals[name] = commit_file(path / name, partial(save_file, values))
    files = {name: (seal.bytes, seal.sha256) for name, seal in seals.items()}
    state = State(step=step, skipped=skipped, fingerprint=fingerprint, files=files)
    sealed = state.model_copy(update={"hash": state.own_hash()})
    write_bytes(path / "state.json", to_json(sealed.model_dump(mode="json")))
    fsync_path(folder)
    return path


def find_checkpoint(folder: Path) -> tuple[Path, State] | None:
    """The newest checkpoint that is complete and as it was sealed; others are passed over."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        state = _read_state(path)
        if state is not None and all(
            (path / name).is_file() and tuple(seal_file(path / name)) == tuple(seal)
            for name, seal in state.files.items()
        ):
            return path, state
    return None


def load_checkpoint(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's tensors into the model and the optimizer, bit by bit."""
    saved = load_file(path / _FILES[0])
    own = unique_tensors(model)
    if saved.keys() != own.keys():
        message = f"{path} holds other tensors than the model: {saved.keys() ^ own.keys()}"
        raise RuntimeError(message)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(path / _FILES[1]).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def keep_newest(folder: Path, count: int) -> None:
    """Remove all but the newest complete checkpoints, and what a killed save left behind."""
    complete = [path for path in sorted(folder.glob("step-*")) if (path / "state.json").exists()]
    for path in sorted(folder.glob("step-*")):
        if path not in complete[-count:]:
            (path / "state.json").unlink(missing_ok=True)
            shutil.rmtree(path)


def unique_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, one for each storage: a tied head is its embedding."""
    seen = {weight.data_ptr() for weight in model.parameters() if not weight.requires_grad}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            found[name] = tensor
    return found


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": t.contiguous() for i, slots in state.items() for name, t in slots.items()
    }


def _read_state(path: Path) -> State | None:
    try:
        data = (path / "state.json").read_bytes()
        state = State.model_validate(orjson.loads(data))
    except (OSError, orjson.JSONDecodeError, ValidationError):
        return None
    is_as_written = data == to_json(state.model_dump(mode="json"))
    return state if is_as_written and state.hash == state.own_hash() else None
