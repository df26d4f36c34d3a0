"""Runs whose processes die: nothing hangs, and the pairs of every step do not change."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from torch import equal

from dpo.config import TrainConfig
from dpo.training.loop import train
from tests.dpo.ranks import run_forked
from tests.dpo.training.test_distributed import ENVIRONMENT, launch, lines, write_config
from tests.effort import times

ConfigOf = Callable[..., TrainConfig]
INTERRUPTIONS = times(2, 5)
PATIENCE = 60


def wait_for(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def start_two(config: TrainConfig, folder: Path) -> subprocess.Popen[str]:
    """Start a run in two processes."""
    path = write_config(folder / "train.yaml", config)
    return subprocess.Popen(
        [*launch(2), "-m", "dpo", str(path)],
        env=ENVIRONMENT | {"ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def last_step(out: Path) -> int:
    path = out / "pairs.jsonl"
    found = path.read_bytes().splitlines() if path.exists() else []
    return int(json.loads(found[-1])["step"]) if found else 0


def ids_by_step(out: Path) -> dict[int, list[Any]]:
    """Return the lists of pair ids that a log has for each step, one per time it ran."""
    found: dict[int, list[Any]] = {}
    for line in lines(out / "pairs.jsonl"):
        found.setdefault(line["step"], []).append(line["pair_ids"])
    return found


def test_interruptions_change_neither_pairs_nor_weights(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    settings = {"steps": 40, "checkpoint_every": 1, "log_pairs": True, "dropout": True}
    whole = config_of(**settings, out=str(tmp_path / "whole"))
    config = config_of(**settings, out=str(tmp_path / "killed"))
    path = write_config(tmp_path / "train.yaml", config)
    command = [sys.executable, "-m", "dpo", str(path)]
    for number in range(INTERRUPTIONS):
        until = 3 + number * 30 // INTERRUPTIONS
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        wait_for(lambda until=until: last_step(config.out) >= until, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (config.out / "run.json").exists()
    for out in (config.out, whole.out):  # in processes of one thread, whose sums have one order
        done = run_forked(1, [str(path), f"out={out}"], tmp_path / "logs")
        assert done.returncode == 0, done.stderr

    expected = {line["step"]: line["pair_ids"] for line in lines(whole.out / "pairs.jsonl")}
    found = ids_by_step(config.out)
    assert found.keys() == expected.keys() == set(range(1, 41))
    assert all(ids == expected[step] for step, seen in found.items() for ids in seen)
    left, right = (load_file(one.out / "model" / "model.safetensors") for one in (whole, config))
    assert all(equal(left[name], right[name]) for name in right)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_ends_the_others(victim: int, config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(steps=3000, checkpoint_every=1, log_pairs=True)
    process = start_two(config, tmp_path)
    wait_for(lambda: last_step(config.out) >= 2, process)
    ranks = {
        int(child.environ()["RANK"]): child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RANK" in child.environ()
    }
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[victim].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "SIGKILL" in errors or "-9" in errors
    assert not ranks[1 - victim].is_running()

    done = last_step(config.out)
    train(config.model_copy(update={"steps": done + 2}))
    assert last_step(config.out) == done + 2


def test_sigterm_to_the_launcher_leaves_a_checkpoint_of_all_ranks(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    config = config_of(steps=3000, log_pairs=True)
    process = start_two(config, tmp_path)
    wait_for(lambda: last_step(config.out) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    (checkpoint,) = (config.out / "checkpoints").iterdir()
    done = int(checkpoint.name.removeprefix("step-"))
    assert f"stopped after step {done:,}; run again to continue" in errors
    assert not (config.out / "run.json").exists()

    train(config.model_copy(update={"steps": done + 2}))
    assert [line["step"] for line in lines(config.out / "pairs.jsonl")] == [*range(1, done + 3)]
