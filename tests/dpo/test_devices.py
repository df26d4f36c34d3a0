"""CUDA builds of torch on a machine without a GPU: everything runs on the CPU, and says so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from dpo import cli
from tests.dpo.conftest import Arena

NOTICE = "torch is built for cuda, but finds no cuda device or no driver: runs on the CPU"


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say what a CUDA build without a driver says: built for cuda, not available."""
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))
    assert torch.accelerator.current_accelerator() == torch.device("cuda")
    assert not torch.accelerator.is_available()


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(getattr(cli, str(words[0])), [str(word) for word in words[1:]])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.usefixtures("no_driver")
def test_each_command_runs_on_the_cpu_and_says_so(arena: Arena, tmp_path: Path) -> None:
    data = shutil.copytree(arena.data, tmp_path / "data")
    prompts, config = tmp_path / "prompts.jsonl", tmp_path / "train.yaml"
    prompts.write_text(json.dumps({"prompt": "Tell me a story."}) + "\n")
    values = {"model": arena.model, "data": data, "out": tmp_path / "run", "steps": 1}
    config.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    few = ("global_batch_size=4", "eval_split=null")
    for words in (
        ("ref", data, "--model", arena.model, "--name", "no-driver"),
        ("train", config, *few),
        ("score", arena.model, data, "-o", tmp_path / "scores"),
        ("sample", prompts, "--model", arena.model, "--max-new-tokens", "2", "--text", "verbatim",
         "-o", tmp_path / "samples.jsonl"),
    ):  # fmt: skip
        assert run(*words).stderr.count(NOTICE) == 1, words


def test_nothing_is_said_where_torch_is_built_for_the_cpu(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: None)

    assert "built for" not in run("ref", arena.data, "--model", arena.model).stderr
