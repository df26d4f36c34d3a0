"""Bit rot below the file system, which changes no timestamp, is detected before training."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import prefdata
from dpo.config import TrainConfig
from dpo.reference_pass import compute_reference
from dpo.scoring.run import ScoreOptions, score
from dpo.training.loop import train
from prefdata.errors import PrefdataError
from prefdata.store.verify import cache_folder, sha256_cached
from tests.dpo.conftest import Arena


def rot(path: Path) -> None:
    """Flip a bit, and make the cache say that the file is unchanged."""
    digest = sha256_cached(path, cache_folder())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    stat = path.stat()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    entry = cache_folder() / f"{stat.st_dev:x}-{stat.st_ino:x}"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(" ".join([*map(str, identity), digest]))


@pytest.mark.parametrize("command", ["show", "ref", "train", "score", "train, its reference"])
def test_all_but_show_read_every_byte(
    command: str,
    arena: Arena,
    tmp_path: Path,
    config_of: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = shutil.copytree(arena.data, tmp_path / "data")
    shard = "reference/default" if command.endswith("reference") else "tokens"
    rot(next((data / shard).glob("train-*.arrow")))
    run: dict[str, Callable[[], object]] = {
        "ref": lambda: compute_reference(data, model=str(arena.model), name="new"),
        "train": lambda: train(config_of(data=str(data))),
        "train, its reference": lambda: train(config_of(data=str(data))),
        "score": lambda: score([str(data)], tmp_path / "out", ScoreOptions(str(arena.model))),
    }

    if command == "show":
        assert prefdata.open(data).splits.keys() == {"train", "test"}
        return
    with pytest.raises(PrefdataError) as caught:
        run[command]()

    assert caught.value.code == "E136"
