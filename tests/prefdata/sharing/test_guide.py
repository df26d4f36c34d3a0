"""docs/sharing.md, run unchanged: all its commands, against a server on loopback."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from prefdata.sharing.push import push
from prefdata.store.reader import Build
from tests.hub import FakeHub
from tests.prefdata.sharing.conftest import make_build
from tests.prefdata.sharing.test_share import run

GUIDE = Path(__file__).parents[3] / "docs" / "sharing.md"
DIFFERS = 1
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
_SPLITS = {"train_prefs": "train", "test_prefs": "test", "SPLIT": "validation"}
"""Splits of another person's set, with the splits of the build that its rows are from."""


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [
        line.replace("ORG/", "org/").replace("--tokenizer M", "--tokenizer tok") for line in lines
    ]


def test_every_command_of_the_guide_runs(
    build: Build, hub: FakeHub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    here = tmp_path / "guide"
    shutil.copytree(tiny, here / "tok")
    shutil.copytree(build.path, here / "out" / "hh")
    shutil.copytree(build.path, here / "out" / "v1")
    other = make_build(tmp_path, tiny, "other", max_length=400)
    shutil.copytree(other.path, here / "out" / "v2")
    rows = build.text("train").select(["prompt", "chosen", "rejected"])
    datasets.Dataset(rows).save_to_disk(here / "saved")
    lines = {
        split: b"".join(part for part in _lines(build, kind)) for split, kind in _SPLITS.items()
    }
    files = {f"CONFIG/{split}.jsonl": data for split, data in lines.items()}
    card = "---\nconfigs:\n- config_name: CONFIG\n  data_files:\n"
    card += "".join(f"  - split: {split}\n    path: CONFIG/{split}.jsonl\n" for split in lines)
    card += "---\n"
    sha = hub.create("datasets/org/NAME", {"README.md": card.encode(), **files})
    hub.tags["datasets/org/NAME"] = {"REV": sha}

    monkeypatch.chdir(here)
    for line in commands():
        if line.startswith("prefdata pull"):
            repo = "datasets/org/hh-pairs"
            hub.tags[repo]["v1"] = hub.head(repo)[0]
            shutil.rmtree(here / line.split()[-1], ignore_errors=True)
        if line.startswith("prefdata diff org/NAME"):
            line = line.replace("org/NAME", "org/hh-pairs")
        done = run(*line.split()[1:])
        assert done.exit_code == (DIFFERS if " diff " in line else 0), (line, done.output)


def test_the_python_of_the_guide_runs(
    build: Build, hub: FakeHub, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    push(build.path, "org/NAME")
    push(build.path, "org/pairs")
    repo = "datasets/org/pairs"
    hub.tags[repo]["v1"] = commit = hub.head(repo)[0]
    shutil.copytree(tiny, tmp_path / "M")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")

    for block in blocks:
        text = block.replace("ORG/hh-pairs", "org/pairs").replace("COMMIT", commit)
        names: dict[str, Any] = {}
        exec(text.replace("ORG/", "org/"), names)
    assert names["build"].content_hash == build.content_hash


def _lines(build: Build, split: str) -> list[bytes]:
    rows = build.frame(split).select("prompt", "chosen", "rejected")
    return [rows.write_ndjson().encode()]
