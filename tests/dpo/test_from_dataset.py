"""`dpo.train(dataset=…)`: what `Build.dataset` gives is built, referenced and trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict

import dpo
import prefdata
from dpo.config import TrainConfig
from tests.dpo.conftest import Arena

ConfigOf = Callable[..., TrainConfig]


def losses(config: TrainConfig, dataset: Any = None) -> tuple[list[float], list[str]]:
    """Train, and return the loss of each step and the messages."""
    found: list[float] = []
    said: list[str] = []
    dpo.train(
        config, dataset=dataset, on_message=said.append,
        report=lambda _step, _total, metrics: found.extend(
            value for name, value in metrics.items() if name == "loss"
        ),
    )  # fmt: skip
    return found, said


def test_a_dataset_is_trained_as_the_build_it_is_of(
    config_of: ConfigOf, arena: Arena, tmp_path: Path
) -> None:
    build = prefdata.open(arena.data)
    rows = DatasetDict({split: build.dataset(split) for split in build.splits})
    wanted, _ = losses(config_of(out=str(tmp_path / "a")))
    config = config_of(out=str(tmp_path / "b"), data=str(tmp_path / "data"))
    found, said = losses(config, rows)

    assert found == wanted
    assert prefdata.open(config.data).content_hash == build.content_hash
    assert any("the dataset is built: train" in line for line in said)
    assert any("reference log-probs of" in line for line in said)


def test_a_second_run_uses_what_is_there(config_of: ConfigOf, arena: Arena, tmp_path: Path) -> None:
    rows = prefdata.open(arena.data).dataset("train")
    data = tmp_path / "data"
    losses(config_of(out=str(tmp_path / "a"), data=str(data)), rows)
    files = [data / "manifest.json", data / "reference/default/manifest.json"]
    before = [path.stat().st_mtime_ns for path in files]
    _, said = losses(config_of(out=str(tmp_path / "b"), data=str(data)), rows)

    assert [path.stat().st_mtime_ns for path in files] == before
    assert not any("reference log-probs" in line for line in said)
    other = config_of(out=str(tmp_path / "c"), data=str(data))
    with pytest.raises(prefdata.PrefdataError, match="E142"):
        dpo.train(other, dataset=rows.select(range(9)))


def test_losses_without_a_reference_compute_none(
    config_of: ConfigOf, arena: Arena, tmp_path: Path
) -> None:
    rows = prefdata.open(arena.data).dataset("train")
    config = config_of(data=str(tmp_path / "data"), loss={"name": "simpo"})
    found, _ = losses(config, [*rows, rows[0]])

    assert len(found) == 3
    assert not (tmp_path / "data/reference").exists()


def test_copies_are_said(config_of: ConfigOf, arena: Arena, tmp_path: Path) -> None:
    rows = prefdata.open(arena.data).dataset("train")
    config = config_of(data=str(tmp_path / "data"), loss={"name": "simpo"})
    _, said = losses(config, [*rows, rows[0]])

    assert any("1 rows are copies of others" in line for line in said)
