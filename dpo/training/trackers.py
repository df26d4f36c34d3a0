"""Trackers of accelerate that also get a run's metrics: their packages, projects and names."""

import os
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.training.deciding import flat

PROJECT = "dpo"
"""Project of a run, unless the environment names one."""
_PROJECT_OF = {
    "wandb": "WANDB_PROJECT",
    "trackio": "TRACKIO_PROJECT",
    "mlflow": "MLFLOW_EXPERIMENT_NAME",
    "comet_ml": "COMET_PROJECT_NAME",
    "swanlab": "SWANLAB_PROJECT",
    "clearml": "CLEARML_PROJECT",
}
"""Environment variable with each tracker's project: its own, or the one of transformers."""
_NAME_OF = {
    "wandb": ("name", "WANDB_NAME"),
    "trackio": ("name", "TRACKIO_NAME"),
    "swanlab": ("experiment_name", "SWANLAB_EXPERIMENT_NAME"),
    "mlflow": ("run_name", "MLFLOW_RUN_NAME"),
}
"""Keyword of a run's name, and the environment variable that names it."""


def check_trackers(config: TrainConfig) -> None:
    """Raise UsageError (T143) for a tracker whose package is not installed."""
    available = [str(name) for name in get_available_trackers()]
    for name in config.trackers:
        if name not in available:
            problem = f"needs the package {name}, which is not installed"
            remedy = f"pip install {name.replace('_', '-')}, or leave it out"
            raise UsageError("T143", f"trackers: {name}", problem, remedy)


def start_trackers(accelerator: Accelerator, config: TrainConfig) -> None:
    """Start each tracker with the run's settings, under its own project.

    The run is named like its directory, unless the environment names it.
    """
    values = {
        name: value if isinstance(value, (int, float, str, bool)) else str(value)
        for name, value in flat(config.model_dump(mode="json")).items()
    }
    wanted, started = accelerator.log_with, []
    for tracker in wanted:
        options: dict[str, Any] = {}
        if (named := _NAME_OF.get(str(tracker))) and named[1] not in os.environ:
            options[named[0]] = config.out.name
        accelerator.log_with, accelerator.trackers = [tracker], []
        project = os.environ.get(_PROJECT_OF.get(str(tracker), ""), PROJECT)
        accelerator.init_trackers(project, values, {str(tracker): options})
        started += accelerator.trackers
    accelerator.log_with, accelerator.trackers = wanted, started
