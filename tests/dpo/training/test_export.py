"""`dpo-export` writes a checkpoint of a run as the model that the run had at that step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo.artifacts.rescore import gaps, probe
from dpo.cli import export
from dpo.config import TrainConfig
from dpo.training.loop import train
from tests.dpo.conftest import Arena, open_alone, train_open

ConfigOf = Callable[..., TrainConfig]
RATE = {"learning_rate": 1e-2}


def run(*words: Any) -> Result:
    return CliRunner().invoke(export, [str(word) for word in words])


class StopError(Exception):
    """Stands for a kill."""


def stopped_run(config: TrainConfig, *, after: int) -> None:
    """Train until a kill after a step, with a checkpoint of each."""

    def stop(step: int, _: int, metrics: dict[str, float]) -> None:
        if step > after and "loss" in metrics:
            raise StopError

    with pytest.raises(StopError):
        train(config, report=stop)


def same(left: Path, right: Path) -> bool:
    one, two = (load_file(folder / "model.safetensors") for folder in (left, right))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_a_checkpoint_of_a_stopped_run_is_the_model_of_a_run_of_that_length(
    lora: Any, config_of: ConfigOf, tmp_path: Path
) -> None:
    settings = {"lora": lora, "optimizer": RATE, "checkpoint_every": 1, "keep_checkpoints": 9}
    config = config_of(**settings, steps=6)
    stopped_run(config, after=4)
    shorter = config_of(
        **settings | {"steps": 3, "checkpoint_every": None}, out=str(tmp_path / "3")
    )
    train(shorter)
    newest, third = (run(config.out, "-o", tmp_path / name, *words) for name, words in (
        ("newest", ()), ("third", ("--step", "3"))))  # fmt: skip

    assert (newest.exit_code, third.exit_code) == (0, 0), newest.output + third.output
    assert "the model of step 4 of" in newest.output
    assert same(tmp_path / "third", shorter.out / "model")
    assert not same(tmp_path / "newest", shorter.out / "model")
    assert "step 3 of the run run" in (tmp_path / "third" / "README.md").read_text()
    AutoTokenizer.from_pretrained(tmp_path / "third")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_is_exported(config_of: ConfigOf, arena: Arena, tmp_path: Path) -> None:
    config = config_of(lora={"r": 4}, optimizer=RATE, steps=4, checkpoint_every=3)
    opened = open_alone(config)
    train_open(opened)
    done = run(config.out, "--adapter", "-o", tmp_path / "adapter")
    whole = run(config.out, "-o", tmp_path / "whole")

    assert (done.exit_code, whole.exit_code) == (0, 0), done.output + whole.output
    base = AutoModelForCausalLM.from_pretrained(arena.model)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        assert torch.allclose(adapted.eval()(ids).logits, merged.eval()(ids).logits, atol=1e-4)
    wanted = probe(opened.policy, opened.train.pairs)
    assert gaps(merged, wanted).max() > 1e-3, "the last step is one more"


def test_a_dtype_and_the_best_step_may_be_chosen(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(
        steps=6, eval_every=2, keep_best="eval/kl_estimate", optimizer={"learning_rate": 5e-2}
    )
    train(config)
    done = run(config.out, "--step", "best", "--dtype", "bfloat16", "-o", tmp_path / "best")
    again = run(config.out, "--step", "best", "-o", tmp_path / "again")

    assert done.exit_code == 0, done.output
    assert "rounding to its dtype changes log-probs" in done.output
    dtypes = {tensor.dtype for tensor in load_file(tmp_path / "best/model.safetensors").values()}
    assert dtypes == {torch.bfloat16}
    best = json.loads((config.out / "run.json").read_text())["best"]["step"]
    assert f"step {best:.0f}" in again.output
    assert same(tmp_path / "again", config.out / "model")


def test_what_cannot_be_exported_is_said_with_its_code(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(steps=3, checkpoint_every=1)
    out = tmp_path / "out"
    assert "[T144]" in run(tmp_path, "-o", out).output
    train(config)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")

    assert "name one of its steps: 1, 2 [T144]" in run(config.out, "-o", out, "--step", 3).output
    assert "has no best step" in run(config.out, "-o", out, "--step", "best").output
    assert "[T145]" in run(config.out, "-o", out, "--adapter").output
    assert "[E171]" in run(config.out, "-o", tmp_path / "taken").output
    assert run(config.out, "-o", out, "--step", "third").exit_code == 2
    assert not out.exists()
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]
    for file in (config.out / "checkpoints").rglob("weights*"):
        file.write_bytes(b"")
    assert f"this finished run is in {config.out}/model [T144]" in (
        run(config.out, "-o", out).output
    )


@pytest.mark.parametrize(("merged", "kept"), [(True, "model and {}/adapter"), (False, "adapter")])
def test_a_run_without_checkpoints_names_what_it_saved(
    merged: bool, kept: str, config_of: ConfigOf, tmp_path: Path
) -> None:
    config = config_of(lora={"r": 2}, save={"merged": merged})
    train(config)

    said = run(config.out, "-o", tmp_path / "out").output
    assert f"this finished run is in {config.out}/{kept.format(config.out)} [T144]" in said
