"""fp16: near float32; overflowing steps are run again; the loss scale is resumed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dpo import precision
from dpo.config import TrainConfig
from dpo.errors import MismatchError, TrainingError
from dpo.precision import LossScale, Scale
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from dpo.training.step import train_step
from tests.dpo.conftest import Arena, open_alone, train_open, without_plan

ConfigOf = Callable[..., TrainConfig]
HUGE = 2.0**40


@pytest.fixture(scope="module")
def data(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp16") / "build"
    shutil.copytree(arena.data, folder)
    compute_reference(folder, model=str(arena.model), name="fp16", mixed_precision="fp16")
    return folder


@pytest.fixture
def half(config_of: ConfigOf, data: Path) -> ConfigOf:
    def make(**changes: Any) -> TrainConfig:
        changes = {"mixed_precision": "fp16", "reference": {"name": "fp16"}} | changes
        return config_of(data=str(data), **changes)

    return make


def lines(out: Path, *names: str) -> list[list[float]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [[line[name] for name in names] for line in lines if "loss" in line]


def column(out: Path, name: str) -> list[float]:
    return [value for (value,) in lines(out, name)]


def test_fp16_stays_near_float32(half: ConfigOf, config_of: ConfigOf, tmp_path: Path) -> None:
    exact = config_of(out=str(tmp_path / "exact"), steps=6)
    rounded = half(steps=6)
    said: list[str] = []
    train(exact, on_message=said.append)
    assert without_plan(said) == []
    train(rounded, on_message=said.append)
    assert without_plan(said) == ["fp16 on a CPU may take hundreds of times as long as bf16"]

    wanted, found = (column(config.out, "loss") for config in (exact, rounded))
    assert found == pytest.approx(wanted, abs=2e-3)
    assert found != wanted
    norms = [column(config.out, "grad_norm") for config in (exact, rounded)]
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


@pytest.mark.parametrize("loss", ["dpo", "bco_pair", "beta_dpo"])
def test_a_step_that_overflows_is_run_again_and_loses_no_pairs(
    loss: str, half: ConfigOf, tmp_path: Path
) -> None:
    plain = half(out=str(tmp_path / "plain"), loss={"name": loss}, log_pairs=True)
    train(plain)
    scaled = half(out=str(tmp_path / "scaled"), loss={"name": loss}, log_pairs=True)
    train_open(replace(open_alone(scaled), scale=LossScale("fp16", first=HUGE)))

    scales = column(scaled.out, "loss_scale")
    assert scales[0] < HUGE
    wanted, found = (column(config.out, "loss") for config in (plain, scaled))
    assert found == pytest.approx(wanted, abs=2e-3)
    pairs = [(config.out / "pairs.jsonl").read_bytes() for config in (plain, scaled)]
    assert pairs[0] == pairs[1]


def test_the_scale_is_resumed(half: ConfigOf, tmp_path: Path) -> None:
    def train_scaled(config: TrainConfig) -> None:
        scale = LossScale("fp16", first=HUGE, grows_after=2)
        train_open(replace(open_alone(config), scale=scale))

    settings = {"steps": 8, "checkpoint_every": 3, "keep_checkpoints": 9}
    whole = half(out=str(tmp_path / "whole"), **settings)
    train_scaled(whole)
    again = half(out=str(tmp_path / "again"), **settings)
    name = "checkpoints/step-00000003"
    shutil.copytree(whole.out / name, again.out / name)
    train_scaled(again)

    names = ("step", "loss", "grad_norm", "loss_scale")
    assert lines(again.out, *names) == lines(whole.out, *names)[3:]
    one, other = (load_file(out / "model/model.safetensors") for out in (whole.out, again.out))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert len(set(column(whole.out, "loss_scale"))) > 1


def test_overflow_at_all_scales_is_an_error(half: ConfigOf) -> None:
    run = open_alone(half())
    before = {key: value.clone() for key, value in run.policy.state_dict().items()}
    tried: list[float] = []

    def overflow(gradient: Tensor) -> Tensor:
        tried.append(run.scale.now.value)
        return torch.full_like(gradient, torch.inf)

    run.policy.model.transformer.ln_f.weight.register_hook(overflow)
    with pytest.raises(TrainingError, match=r"use bf16.*T301"):
        train_step(run, 1)

    assert run.scale.now == Scale(2.0**16)
    assert tried == [2.0**power for power in range(16, -1, -1)]
    assert all(torch.equal(before[key], value) for key, value in run.policy.state_dict().items())


def test_a_reference_of_another_precision_is_refused(half: ConfigOf) -> None:
    with pytest.raises(MismatchError, match=r"mixed_precision no, not fp16"):
        train(half(reference={"name": "default"}))


def test_the_scale_doubles_after_steps_without_overflow() -> None:
    scale = LossScale("fp16")
    for _ in range(precision.GROWS_AFTER):
        assert scale.now.value == precision.FIRST_SCALE
        scale.settle()
    assert scale.now == Scale(2 * precision.FIRST_SCALE)
    assert scale.halve()
    assert scale.now == Scale(precision.FIRST_SCALE)


@pytest.mark.parametrize("kind", ["no", "bf16"])
def test_other_precisions_have_no_scale(kind: precision.Precision) -> None:
    scale, weight = LossScale(kind), nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3.0)
    scale.divide_out([weight])
    scale.settle()
    assert (scale.now, scale.halve()) == (Scale(1.0), False)
    assert weight.grad.tolist() == [3.0, 3.0]
