"""A checkpoint of a run as a model, also of a run that was stopped: `dpo-export`."""

import shutil
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from dpo.artifacts.card import write_export_card
from dpo.artifacts.rescore import Probe
from dpo.artifacts.save import Source, write_model
from dpo.artifacts.summary import read_summary
from dpo.config import TrainConfig
from dpo.config_file import parse_config
from dpo.data.packing import PromptWithCompletions
from dpo.errors import UsageError
from dpo.model.load import load_model
from dpo.model.lora import add_lora
from dpo.model.policy import Policy
from dpo.model.self_check import plain_logps
from dpo.model.source import ModelSource
from dpo.saving_config import SaveConfig
from dpo.training.checkpoint import (
    State,
    checkpoint_steps,
    find_checkpoint,
    load_weights,
    open_checkpoint,
    step_folder,
)
from dpo.training.run_folder import checkpoints_folder
from prefdata.errors import UsageError as OutputError
from prefdata.store.commit import fsync_path, temporary_name
from prefdata.store.ownership import require_writable_name

Form = Literal["merged", "adapter"]
_LENGTH = 24
"""Tokens of the text on which the exported model is compared."""


class Exported(NamedTuple):
    """What was exported, and messages about it."""

    step: int
    form: Form
    notices: list[str]


def export(
    run: Path,
    out: Path,
    *,
    step: int | Literal["best"] | None = None,
    form: Form = "merged",
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
) -> Exported:
    """Write a checkpoint of a run as a model in the form of its base, or as an adapter.

    `step` is a step, `best` for that of `keep_best`, or None for the newest complete checkpoint.
    Raises UsageError (T144 no such checkpoint, T145 no adapter, T146 no settings), E171 if `out`
    exists, and TrainingError (T311) if what was written is another model.
    """
    require_writable_name(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        remedy = "name another output directory, or move it away"
        raise OutputError("E171", str(out), "is not an empty directory", remedy)
    path, state = _checkpoint(run, step)
    config = _settings(run, state)
    if config.lora is None and form == "adapter":
        problem = "trains all weights, so it has no adapter"
        raise UsageError("T145", str(run), problem, "export the whole model, without --adapter")
    save = SaveConfig(adapter=form == "adapter", merged=form == "merged", dtype=dtype)
    config = config.model_copy(update={"save": save})
    policy = _policy(path, state, config)
    card = write_export_card(config, name=out.name, run=run.name, step=state.step)
    staged, other = temporary_name(out), temporary_name(out.with_name(f"{out.name}-adapter"))
    for folder in (staged, other):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
    places = (staged, other) if form == "adapter" else (other, staged)
    notices = write_model(Source(policy, _probe(policy), card=card), config, *places)
    for file in staged.rglob("*"):
        fsync_path(file)
    if out.is_dir():
        out.rmdir()
    staged.rename(out)
    return Exported(state.step, form, notices)


def _checkpoint(run: Path, step: int | Literal["best"] | None) -> tuple[Path, State]:
    """Return a complete checkpoint of a run, and its state. Raises UsageError (T144)."""
    folder = checkpoints_folder(run)
    newest = find_checkpoint(folder)
    if newest is None:
        problem = "has no complete checkpoint"
        remedy = "name the output of dpo-train; a run makes some by checkpoint_every"
        kept = [str(run / name) for name in ("model", "adapter") if (run / name).is_dir()]
        if kept and read_summary(run) is not None:
            remedy = f"this finished run is in {' and '.join(kept)}"
        raise UsageError("T144", str(run), problem, remedy)
    if step is None:
        return newest
    wanted = _best_step(run, newest[1]) if step == "best" else step
    path = step_folder(folder, wanted)
    state = open_checkpoint(path)
    if state is None:
        known = ", ".join(f"{step:,}" for step in checkpoint_steps(folder))
        problem = f"has no complete checkpoint of step {wanted:,}"
        raise UsageError("T144", str(run), problem, f"name one of its steps: {known}")
    return path, state


def _best_step(run: Path, newest: State) -> int:
    """Return the step of the best evaluation, also if it is the last and has no checkpoint."""
    summary = read_summary(run)
    if summary is not None and summary.best and summary.fingerprint == newest.fingerprint:
        return int(summary.best["step"])
    if newest.best is None:
        raise UsageError("T144", str(run), "has no best step", "set keep_best, or name a step")
    return newest.best.step


def _settings(run: Path, state: State) -> TrainConfig:
    """Return the settings of a run: those in its checkpoint or, if it is older, in run.json."""
    if state.config is not None:
        return parse_config(state.config, place=str(run))
    summary = read_summary(run)
    if summary is None or summary.fingerprint != state.fingerprint:
        problem = "was begun by an earlier version, so its checkpoints do not name their settings"
        raise UsageError("T146", str(run), problem, "finish it with dpo-train first")
    return summary.config


def _policy(path: Path, state: State, config: TrainConfig) -> Policy:
    """Load the base of a run, and the weights or the adapter of its checkpoint."""
    start = None if config.lora is None else config.lora.start
    model = load_model(ModelSource(config.model, adapter=start, quantize=config.quantize))
    if config.lora is not None:
        add_lora(model, config.lora, seed=config.seed)
    load_weights(path, state, model=model)
    return Policy(model, shared=False)


def _probe(policy: Policy) -> Probe:
    """Score a text of any tokens: the data of the run may be elsewhere."""
    vocabulary = int(policy.model.get_input_embeddings().weight.size(0))  # type: ignore[operator]
    ids = np.random.default_rng(0).integers(vocabulary, size=_LENGTH).astype(np.int32)
    rows = [PromptWithCompletions(ids[:4], (ids[4:],), (None,))]
    policy.eval()
    with torch.no_grad():
        return Probe(rows, plain_logps(policy.model, rows).numpy())
