"""dpo on Windows: a process without what Windows lacks trains the same."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import dpo
from dpo.config import TrainConfig
from tests.dpo.conftest import Arena, build_pairs

SIMULATED = Path(__file__).parents[1] / "simulated"


def test_windows_trains_as_linux_does(
    arena: Arena, config_of: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    here = config_of(steps=2)
    dpo.train(here)
    data, out = build_pairs(tmp_path / "data", tokenizer=arena.model), tmp_path / "there"
    there = here.model_dump(mode="json", exclude_unset=True) | {"data": str(data), "out": str(out)}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(there))
    more = {"SIMULATED": "windows", "PYTHONWARNDEFAULTENCODING": "1"}
    paths = os.pathsep.join([str(SIMULATED), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, SIMULATED / "trainer.py", data, arena.model, tmp_path / "train.yaml"],
        env=os.environ | more | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found, wanted = (losses(run) for run in (out, here.out))
    assert len(wanted) == 2
    assert found == pytest.approx(wanted, abs=1e-4)  # Linux may run products by oneDNN


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
