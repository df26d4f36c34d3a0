"""Trackers: a missing package is one coded line, and a project's name is the environment's."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.training.loop import train
from tests.dpo.conftest import Arena

ConfigOf = Callable[..., TrainConfig]
FAKE = """
import json, pathlib

class Config(dict):
    def update(self, values, **_):
        super().update(values)

class Run:
    def __init__(self):
        self.config = config
    def log(self, values, step=None, **_):
        with pathlib.Path("logged.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\\n")
    def finish(self):
        pass

config = Config()

def init(**given):
    pathlib.Path("init.json").write_text(json.dumps(given))
    return Run()
"""


@pytest.mark.parametrize(
    ("name", "install"),
    [("wandb", "pip install wandb"), ("mlflow", "pip install mlflow"),
     ("comet_ml", "pip install comet-ml"), ("tensorboard", "pip install tensorboard"),
     ("swanlab", "pip install swanlab"), ("clearml", "pip install clearml"),
     ("aim", "pip install aim"), ("dvclive", "pip install dvclive"),
     ("trackio", "pip install trackio")],
)  # fmt: skip
def test_a_tracker_without_its_package_is_refused(
    name: str, install: str, config_of: ConfigOf
) -> None:
    config = config_of(trackers=[name])
    with pytest.raises(UsageError, match="T143") as caught:
        train(config)

    assert caught.value.place == f"trackers: {name}"
    assert install in caught.value.remedy
    assert not config.out.exists(), "refused before anything is written"


def test_an_unknown_tracker_is_refused(config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match=r"trackers.*T122"):
        config_of(trackers=["neptune"])


@pytest.mark.parametrize(
    ("environment", "project", "name"),
    [({}, "dpo", "run"), ({"WANDB_PROJECT": "mine", "WANDB_NAME": "third"}, "mine", None)],
)
def test_the_environment_names_the_project(
    environment: dict[str, str], project: str, name: str | None, arena: Arena, tmp_path: Path
) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/__init__.py").write_text(FAKE)
    info = tmp_path / "wandb-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 0.0.0\n")
    settings = {
        "model": str(arena.model), "data": str(arena.data), "out": "run", "steps": 2,
        "global_batch_size": 2, "trackers": "wandb",
    }  # fmt: skip
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    import os

    paths = f"{tmp_path}{os.pathsep}{Path.cwd()}"
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    command = [sys.executable, "-m", "dpo", "train.yaml"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    given = json.loads((tmp_path / "init.json").read_text())
    assert given["project"] == project
    assert given.get("name") == name
    logged = [json.loads(line) for line in (tmp_path / "logged.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2, 2]
