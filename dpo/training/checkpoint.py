"""A run's state on disk: weights and optimizer as safetensors, the rest as JSON, no pickle.

    OUT/checkpoints/step-00000040/
      weights.safetensors  optimizer.safetensors  state.json

If the weights are sharded, each process writes its rows to its own file, such as
`weights-00001-of-00002.safetensors`. A tensor is the concatenation of the rows in all files; any
number of processes can read it. `state.json` is written last and seals the others; a directory
without it is not a checkpoint. The order of pairs, the learning rate and the seeds of dropout are
functions of the step, so they are not stored.
"""

import operator
import re
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch import distributed as dist

from dpo.errors import UsageError
from dpo.loss.beta_dpo import Margins
from dpo.precision import Scale
from dpo.training.best import Best, Patience
from dpo.training.distributed import from_local_shard, local_shard, num_pieces, shard_bounds
from prefdata.store.canonical import hash_json, to_json
from prefdata.store.commit import FileDigest, commit_file, fsync_path, seal_file, write_bytes

_KINDS = ("weights", "optimizer")
_FOLDER = re.compile(r"step-(\d{8,})")
_OWN_FILE = re.compile(
    r"(weights|optimizer)(-\d{5}-of-\d{5})?\.safetensors|state\.json|\..*\.prefdata-tmp"
)


class State(BaseModel):
    """State of a run after a step, and the seals of its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["dpo-checkpoint"] = "dpo-checkpoint"
    format_version: Literal[1] = 1
    step: int
    skipped: int = 0
    """Steps skipped up to here because their numbers were not finite."""
    seen: dict[str, Margins] = {}
    """Running statistics of stateful losses, by name."""
    scale: Scale | None = None
    """Loss scale, in fp16."""
    best: Best | None = None
    """Best evaluation so far, by `keep_best`; its step has a checkpoint."""
    patience: Patience | None = None
    """Evaluations that `early_stopping` has seen."""
    config: dict[str, Any] | None = None
    """Settings of the run; earlier versions did not write them."""
    fingerprint: str
    decides: dict[str, Any] = Field(default={}, exclude_if=operator.not_)
    """What the fingerprint is of, by dotted name; earlier versions did not write it."""
    files: dict[str, tuple[int, str]] = {}
    hash: str = Field(default="")

    def own_hash(self) -> str:
        return hash_json(self.model_dump(mode="json", exclude={"hash"}, exclude_none=True))

    def to_bytes(self) -> bytes:
        return to_json(self.model_dump(mode="json", exclude_none=True))


def save_checkpoint(
    folder: Path, state: State, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Path:
    """Commit a state with its tensors and their seals; return the checkpoint's directory.

    One process calls it, or all of them if the weights are sharded.
    """
    path, parts = step_folder(folder, state.step), num_pieces(model)
    part = dist.get_rank() if parts > 1 else 0
    if part == 0:
        path.mkdir(parents=True, exist_ok=True)
        (path / "state.json").unlink(missing_ok=True)
    if parts > 1:
        dist.barrier()
    files: dict[str, FileDigest] = {}
    for kind, tensors in zip(_KINDS, (_weights(model), _slots(optimizer)), strict=True):
        shards = {key: local_shard(tensor) for key, tensor in tensors.items()}
        own = {k: rows for k, rows in shards.items() if part == 0 or rows is not tensors[k]}
        name = f"{kind}-{part + 1:05d}-of-{parts:05d}" if parts > 1 else kind
        files[f"{name}.safetensors"] = commit_file(
            path / f"{name}.safetensors", partial(save_file, _apart(own))
        )
    if parts > 1:
        everyones: list[dict[str, FileDigest]] = [{}] * parts
        dist.all_gather_object(everyones, files)
        files = {name: seal for some in everyones for name, seal in some.items()}
    if part == 0:
        seals = {name: (seal.bytes, seal.sha256) for name, seal in sorted(files.items())}
        sealed = state.model_copy(update={"files": seals})
        sealed = sealed.model_copy(update={"hash": sealed.own_hash()})
        write_bytes(path / "state.json", sealed.to_bytes())
        fsync_path(folder)
    return path


def find_checkpoint(folder: Path, *, keeps_best: bool = False) -> tuple[Path, State] | None:
    """Return the newest checkpoint that is complete and matches its seals; skip others.

    With `keeps_best`, the checkpoint of its best evaluation must be there too.
    """
    for path in reversed(_own_folders(folder)):
        state = open_checkpoint(path)
        if state is not None and (
            not keeps_best
            or state.best is None
            or state.best.step == state.step
            or open_checkpoint(step_folder(folder, state.best.step)) is not None
        ):
            return path, state
    return None


def open_checkpoint(path: Path) -> State | None:
    """Return the state of a checkpoint that is complete and matches its seals, else None."""
    state = _read_state(path)
    is_whole = state is not None and all(
        (path / name).is_file() and tuple(seal_file(path / name)) == tuple(seal)
        for name, seal in state.files.items()
    )
    return state if is_whole else None


def step_folder(folder: Path, step: int) -> Path:
    """Return the directory of a step's checkpoint."""
    return folder / f"step-{step:08d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint, complete or not."""
    return [int(path.name.removeprefix("step-")) for path in _own_folders(folder)]


def fingerprints(folder: Path) -> set[str]:
    """Return the fingerprints of the runs that have checkpoints in a directory."""
    states = map(_read_state, _own_folders(folder))
    return {state.fingerprint for state in states if state is not None}


def load_checkpoint(
    path: Path, state: State, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Load a checkpoint's tensors into the model and the optimizer, bit by bit."""
    load_weights(path, state, model=model)
    slots = [path / name for name in state.files if name.startswith("optimizer")]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with _Parts(slots) as saved:
        moments = {
            key: saved.read(key, like=parameters[int(key.split(".")[0])]) for key in saved.names
        }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": _nested(moments), "param_groups": groups})


def load_weights(path: Path, state: State, *, model: torch.nn.Module) -> None:
    """Load a checkpoint's weights into the model, bit by bit."""
    weights = [path / name for name in state.files if name.startswith("weights")]
    with _Parts(weights) as saved, torch.no_grad():
        own = _weights(model)
        if saved.names != own.keys():
            message = f"{path} contains other tensors than the model: {saved.names ^ own.keys()}"
            raise RuntimeError(message)
        for name, tensor in own.items():
            local_shard(tensor).copy_(local_shard(saved.read(name, like=tensor)))


class _Parts:
    """Tensors of one or several files, each the concatenation of its rows in all of them."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths, self.stack = sorted(paths), ExitStack()

    def __enter__(self) -> "_Parts":
        opened = [self.stack.enter_context(safe_open(path, "pt")) for path in self.paths]
        self.files = [(file, set(file.keys())) for file in opened]
        self.names = set().union(*(keys for _, keys in self.files))
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def read(self, name: str, *, like: Tensor) -> Tensor:
        """Return a tensor's rows; only this process's rows if it is sharded like `like`."""
        slices = [file.get_slice(name) for file, keys in self.files if name in keys]
        shapes = [part.get_shape() for part in slices]
        if not shapes[0]:
            whole: Tensor = slices[0][...]
            return whole
        ends = [sum(shape[0] for shape in shapes[: at + 1]) for at in range(len(shapes))]
        is_cut = [ends[-1], *shapes[0][1:]] == list(like.shape)
        first, last = shard_bounds(like) if is_cut else (0, ends[-1])
        found = [
            part[max(first - end + shape[0], 0) : max(last - end + shape[0], 0)]
            for part, shape, end in zip(slices, shapes, ends, strict=True)
            if first < end and last > end - shape[0]
        ] or [slices[0][:0]]
        return from_local_shard(like, torch.cat(found)) if is_cut else torch.cat(found)


def keep_newest(folder: Path, count: int, fingerprint: str, *, best: int | None = None) -> None:
    """Remove all but the newest complete checkpoints, and the leftovers of a killed save.

    The checkpoint of step `best` is kept as well.

    Keep links, checkpoints of other runs, and names and files that no checkpoint has.
    """
    states = {path: _read_state(path) for path in _own_folders(folder)}
    found = [path for path, s in states.items() if s is None or s.fingerprint == fingerprint]
    complete = [path for path in found if (path / "state.json").exists()]
    for path in found:
        if path not in (*complete[-count:], step_folder(folder, best or 0)):
            (path / "state.json").unlink(missing_ok=True)
            for file in list(path.iterdir()):
                if _OWN_FILE.fullmatch(file.name) and not file.is_dir():
                    file.unlink()
            if not any(path.iterdir()):
                path.rmdir()


def require_places(folder: Path, first: int, last: int) -> None:
    """Raise UsageError (T162) if a file or a link has the name of a checkpoint of these steps."""
    for path in folder.glob("step-*") if folder.is_dir() else ():
        named = _FOLDER.fullmatch(path.name)
        is_due = named is not None and first <= int(named[1]) <= last
        if is_due and (path.is_symlink() or not path.is_dir()):
            problem = "is a file or a link, and a checkpoint would be written there"
            raise UsageError("T162", str(path), problem, "move it away, or name another `out`")


def _own_folders(folder: Path) -> list[Path]:
    """Return the directories that are named like checkpoints, in the order of their steps."""
    found = [
        (int(named[1]), path)
        for path in folder.glob("step-*")
        if (named := _FOLDER.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    ]
    return [path for _, path in sorted(found)]


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training changes, each once: a tied head is its embedding."""
    seen = {id(weight) for weight in model.parameters() if not weight.requires_grad}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def _slots(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors, by the weight's index and the slot's name.

    Names may be nested, as in bitsandbytes, and a number becomes an int64 tensor.
    """
    found: dict[str, Tensor] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add(f"{prefix}.{name}", inner)
        else:
            found[prefix] = value if isinstance(value, Tensor) else torch.tensor(value)

    for place, slots in optimizer.state_dict()["state"].items():
        add(str(place), slots)
    return found


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with separate storages, as safetensors needs: tables may be shared."""
    seen: set[int] = set()
    found = {}
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        found[key] = tensor.clone() if storage in seen else tensor.contiguous()
        seen.add(storage)
    return found


def _nested(slots: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    """Return the slots nested, as `load_state_dict` needs them."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in slots.items():
        place, *parents, name = key.split(".")
        at = state.setdefault(int(place), {})
        for parent in parents:
            at = at.setdefault(parent, {})
        is_number = tensor.dtype == torch.int64 and tensor.ndim == 0
        at[name] = int(tensor) if is_number else tensor
    return state


def _read_state(path: Path) -> State | None:
    try:
        data = (path / "state.json").read_bytes()
        state = State.model_validate(orjson.loads(data))
    except (OSError, orjson.JSONDecodeError, ValidationError):
        return None
    if not all(_OWN_FILE.fullmatch(name) for name in state.files):
        return None
    is_as_written = data == state.to_bytes()
    return state if is_as_written and state.hash == state.own_hash() else None
