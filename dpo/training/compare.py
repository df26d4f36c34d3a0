"""Runs read from their directories, to be compared on one page: `dpo-report`."""

import os
from collections.abc import Sequence
from pathlib import Path

from dpo.artifacts.report.compare import MOST_RUNS, RunRecord, render_comparison
from dpo.artifacts.summary import read_summary
from dpo.config import TrainConfig
from dpo.config_file import parse_config
from dpo.errors import UsageError
from dpo.training.checkpoint import find_checkpoint
from dpo.training.log import read_lines
from dpo.training.run_folder import METRICS, checkpoints_folder
from prefdata.store.commit import write_bytes
from prefdata.store.ownership import (
    identity,
    is_page_of,
    require_new_or,
    require_unsealed,
    require_writable_name,
)


def compare(runs: Sequence[Path], out: Path) -> list[RunRecord]:
    """Write a page about two to eight runs, finished, stopped or still running.

    Raises UsageError (T152) for what is not a run or is named twice, E171 if `out` is another file.
    """
    require_new_or(out, is_page_of("dpo-report"), "a page that dpo-report wrote")
    require_unsealed(out)
    if not 2 <= len(runs) <= MOST_RUNS:
        remedy = "a single run has its own page, report.html in its directory"
        problem = f"compares 2 to {MOST_RUNS} runs, and was given {len(runs)}"
        raise UsageError("T152", "dpo-report", problem, remedy)
    seen: dict[object, Path] = {}
    for run in runs:
        require_writable_name(run)
        if (other := seen.setdefault(identity(run), run)) is not run:
            raise UsageError("T152", str(run), f"is the same run as {other}", "name each run once")
    names = [Path(os.path.realpath(run)).name for run in runs]
    is_clear = len(set(names)) == len(names)
    found = [
        _read(run, name if is_clear else str(run)) for run, name in zip(runs, names, strict=True)
    ]
    write_bytes(out, render_comparison(found).encode())
    return found


def _read(run: Path, name: str) -> RunRecord:
    lines = read_lines(run / METRICS)
    if not any("loss" in line for line in lines):
        problem = f"is not the output of dpo-train: no {METRICS} with steps is in it"
        raise UsageError("T152", str(run), problem, "name the `out` of a run that took a step")
    summary = read_summary(run)
    config = _settings(run) if summary is None else summary.config
    return RunRecord(name, config, lines, summary)


def _settings(run: Path) -> TrainConfig:
    """Return the settings of a run that is not finished, from its newest checkpoint."""
    found = find_checkpoint(checkpoints_folder(run))
    if found is None or found[1].config is None:
        problem = "is not finished, and no checkpoint names its settings"
        raise UsageError("T152", str(run), problem, "finish it, or set checkpoint_every")
    return parse_config(found[1].config, place=str(run))
