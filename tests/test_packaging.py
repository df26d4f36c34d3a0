"""Without the extra `train`, prefdata works and each command of dpo says what to install."""

import importlib.util
import re
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpo import cli
from dpo.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
ABSENT = {"accelerate", "peft", "psutil", "safetensors", "torch"}
COMMANDS = {
    "export": ["run", "-o", "out"],
    "judge": ["rows.jsonl", "--server", "http://127.0.0.1:9", "-o", "out.jsonl"],
    "ref": ["data", "--model", "m"],
    "report": ["a", "b"],
    "sample": ["prompts.jsonl", "--model", "m", "-o", "out.jsonl"],
    "score": ["m", "data", "-o", "out"],
    "train": ["train.yaml"],
}


@pytest.mark.parametrize("name", cli.__all__)
def test_a_command_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(asked: str, usual: Any = importlib.util.find_spec) -> ModuleSpec | None:
        return None if asked in ABSENT else usual(asked)

    monkeypatch.setattr("dpo.commands.command.find_spec", find)
    command = getattr(cli, name)
    with pytest.raises(UsageError) as error:
        command.invoke(command.make_context(name, COMMANDS[name]))

    line = "accelerate, psutil, safetensors, torch are not installed"
    remedy = 'pip install "prefdata-dpo[train]" [T108]'
    assert str(error.value) == f"dpo-{name}: {line}; {remedy}"


def test_what_a_command_looks_for_is_in_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {one.partition(">=")[0] for one in project["optional-dependencies"]["train"]}
    base = {one.partition(">=")[0] for one in project["dependencies"] if "sys_platform" not in one}

    assert extra == ABSENT
    assert not base & ABSENT


def test_workflows_test_the_versions_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    workflows = {
        path.stem: yaml.safe_load(path.read_text())
        for path in (ROOT / ".github/workflows").glob("*.yml")
    }
    python = "Programming Language :: Python :: 3."
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if one.startswith(python)]
    jobs = [job for workflow in workflows.values() for job in workflow["jobs"].values()]
    made = [
        step["run"][5:] for job in jobs for step in job["steps"] if "make " in step.get("run", "")
    ]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert workflows["tests"]["jobs"]["wheel"]["strategy"]["matrix"]["python"] == named
    assert sorted(made) == ["cluster", "dist", "lowest", "test"]
    assert set(made) <= targets
    assert workflows["release"]["permissions"] == {}
