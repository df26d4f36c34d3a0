"""Training from Python: on a finished build, or on a dataset that is built first."""

from collections.abc import Callable, Mapping
from typing import Any

import prefdata
from dpo.config import TrainConfig
from dpo.data.reference_folder import MANIFEST, reference_folder
from dpo.model.source import find_parts
from dpo.reference_pass import compute_reference
from dpo.training.distributed import join_processes
from dpo.training.log import Report
from dpo.training.loop import TrainResult
from dpo.training.loop import train as train_build
from dpo.training.objective import Objective
from prefdata.records.split_names import rank_of
from prefdata.store.reader import Build


def train(
    config: TrainConfig,
    *,
    dataset: Any = None,
    report: Report = lambda step, total, metrics: None,  # noqa: ARG005
    on_message: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> TrainResult:
    """Train a policy on a finished build; resume if `out` has checkpoints of this run.

    With a `dataset`, such as `Build.dataset("train")` or a `DatasetDict`, its rows are built in the
    directory `data` first, with the model's tokenizer, and their reference log-probs are computed
    there if the loss needs them; what is there already is used. All rows of a dataset without
    splits are trained. `report` gets each step's metrics,
    `on_message` single events, both in the main process only. Raises DpoError and PrefdataError.
    """
    if dataset is not None:
        for line in _prepare(config, dataset):
            on_message(line)
        if (
            not isinstance(dataset, Mapping)
            and config.eval_split == "auto"
            and not config.eval_every
        ):
            config = config.model_copy(update={"eval_split": None})
            on_message("the dataset is one split, so there is nothing to evaluate on")
    return train_build(config, report=report, on_message=on_message)


def _prepare(config: TrainConfig, dataset: Any) -> list[str]:
    """Build a dataset and compute its reference; return notes on both."""
    fraction = None if isinstance(dataset, Mapping) else 0.0
    with join_processes().main_process_first():  # the others open what the first one made
        tokenizer = find_parts(config.model).tokenizer
        build = prefdata.build(
            dataset, tokenizer=tokenizer, out=config.data, test_fraction=fraction
        )
    lines = _said(build)
    if config.reference is None or Objective(config.loss).is_reference_free:
        return lines
    name = config.reference.name
    if not (reference_folder(build.path, name) / MANIFEST).exists():
        model = config.reference_model or config.model
        compute_reference(
            build.path, model=model, name=name, mixed_precision=config.mixed_precision
        )
        lines.append(f"{config.data}: reference log-probs of {model} are computed")
    return lines


def _said(build: Build) -> list[str]:
    """Return what was built, and how many copies are trained once."""
    names = sorted(build.splits, key=rank_of)
    splits = ", ".join(f"{name} {build.splits[name].rows:,}" for name in names)
    lines = [f"{build.path}: the dataset is built: {splits} pairs"]
    copies = build.manifest.lines.duplicates
    if copies:
        lines.append(f"{copies:,} rows are copies of others, which are trained once (PD401)")
    return lines
