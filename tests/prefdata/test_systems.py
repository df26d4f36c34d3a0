"""prefdata on macOS and Windows: processes without what these systems lack make the same build."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import UsageError
from prefdata.store.ownership import WINDOWS_REFUSES, require_writable_name
from tests.prefdata.conftest import chat_rows

SIMULATED = Path(__file__).parents[1] / "simulated"


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_other_systems_make_the_same_build(system: str, tiny: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [*chat_rows(40), {"prompt": "no answers"}])
    other = write(tmp_path / "other.jsonl", chat_rows(9))
    here = prefdata.build(BuildConfig(inputs=[str(rows)], tokenizer=str(tiny), out=tmp_path / "a"))
    more = {"SIMULATED": system, "PYTHONWARNDEFAULTENCODING": "1"}
    paths = os.pathsep.join([str(SIMULATED), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, SIMULATED / "session.py", rows, other, tiny, tmp_path / "b"],
        env=os.environ | more | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    there = prefdata.open(tmp_path / "b")
    assert there.manifest.hash == here.manifest.hash
    assert not list((tmp_path / "b").glob(".building*"))
    prefdata.verify(tmp_path / "b")


@pytest.mark.parametrize("name", ["a:b", "what?", "con", "AUX.txt", "ends.", "ends ", "x|y", "<a>"])
def test_names_that_windows_refuses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable_name(tmp_path / name)
    monkeypatch.setattr("prefdata.store.ownership.IS_WINDOWS", True)

    with pytest.raises(UsageError, match="Windows refuses"):
        require_writable_name(tmp_path / name / "out")


@pytest.mark.parametrize("name", ["console", "a.b", ".hidden", "com10", "größe 1", "train-00000"])
def test_names_that_windows_takes(name: str) -> None:
    assert not WINDOWS_REFUSES.search(name)
