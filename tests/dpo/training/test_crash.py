"""Runs that are killed, or find the disk full, at any system call: same weights on resume."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dpo.training.checkpoint import find_checkpoint
from tests.dpo.conftest import Arena
from tests.dpo.ranks import run_forked
from tests.effort import IS_FULL, times
from tests.strace import IS_HERE, Point, points_of, run_with

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(not IS_HERE, reason="strace is not here"),
]
POINTS = times(1, 40)
SETTINGS = {
    "global_batch_size": 4,
    "steps": 3,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "dropout": True,
    "optimizer": {"learning_rate": 1e-3},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, so that sums have one order; only the run writes files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        yield


def command(arena: Arena, out: Path) -> list[str]:
    out.parent.mkdir(parents=True, exist_ok=True)
    config = out.with_suffix(".yaml")
    places = {"model": str(arena.model), "data": str(arena.data), "out": str(out)}
    config.write_text(json.dumps(SETTINGS | places))  # JSON is YAML
    return [sys.executable, "-m", "dpo", str(config)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def normal(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Point]]:
    """A run that ends as usual, and points at which others fail."""
    folder = tmp_path_factory.mktemp("normal")
    first = command(arena, folder / "first")  # caches what it verified, so the next write less
    subprocess.run(first, capture_output=True, check=True)
    whole = folder / "whole"
    return whole, points_of(command(arena, whole), folder / "log", POINTS + 2)[1:-1]


@pytest.mark.parametrize(
    "fault", ["signal=KILL", "error=ENOSPC", *(["error=EIO"] if IS_FULL else [])]
)
def test_a_run_ends_bit_by_bit_the_same_whatever_call_failed(
    fault: str, arena: Arena, normal: tuple[Path, list[Point]], tmp_path: Path
) -> None:
    whole, spread = normal
    assert len(spread) == POINTS

    for number, point in enumerate(spread):
        out = tmp_path / f"{number}" / "run"
        done = run_with(fault, command(arena, out), point, tmp_path / "log")
        assert done.has_fired, point
        if "error" in fault:
            assert "Traceback" not in done.stderr, (point, done.stderr)
            assert done.returncode in (0, 1, 2), (point, done.stderr)
            coded = "[E151]" in done.stderr or not done.stderr.strip()  # printing may have failed
            assert done.returncode == 0 or coded, (point, done.stderr)
        else:
            assert done.returncode != 0, point
        had = find_checkpoint(out / "checkpoints")
        assert had is None or had[1].step in (1, 2)
        again = run_forked(1, command(arena, out)[3:], tmp_path / "again")
        assert again.returncode == 0, (point, again.stderr)
        found = weights(out)
        expected = weights(whole)
        assert all(torch.equal(found[name], expected[name]) for name in expected), point
