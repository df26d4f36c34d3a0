"""Ctrl-C while a command still imports its libraries: one line, exit code 130."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPTS = tomllib.loads(Path("pyproject.toml").read_text())["project"]["scripts"]
WRAPPED = """
try:
    raise KeyboardInterrupt
except KeyboardInterrupt as error:
    raise ModuleNotFoundError("Could not import a module") from error
"""
"""How the lazy imports of transformers pass it on."""


WORDS = {
    "dpo-ref": ["data", "--model", "model"],
    "dpo-train": ["train.yaml"],
    "dpo-sample": ["prompts.jsonl", "--model", "model", "-o", "out.jsonl"],
    "dpo-score": ["model", "data", "-o", "scores"],
}


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize(
    ("library", "code"), [("rich", "raise KeyboardInterrupt"), ("transformers", WRAPPED)]
)
def test_ctrl_c_during_an_import_is_one_line(
    command: str, library: str, code: str, tmp_path: Path
) -> None:
    (tmp_path / f"{library}.py").write_text(code)
    module, function = SCRIPTS[command].split(":")
    start = f"from {module} import {function}; {function}()"

    done = subprocess.run(
        [sys.executable, "-c", start, *WORDS[command]],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 130
    assert done.stderr.startswith("stopped")
    assert done.stderr.count("\n") == 1
