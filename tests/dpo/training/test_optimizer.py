"""Optimizers and schedules: transformers and torch as oracles, and resuming bit by bit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from transformers import GPT2LMHeadModel, Trainer, TrainingArguments, get_scheduler

from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.optimizer_config import OptimizerConfig
from dpo.training.checkpoint import State as Saved
from dpo.training.checkpoint import load_checkpoint, save_checkpoint
from dpo.training.loop import train
from dpo.training.optimizer import learning_rate, make_optimizer, set_rate
from tests.dpo.conftest import Arena

ConfigOf = Callable[..., TrainConfig]
MUON = {
    "name": "torch.optim:Muon", "rest": "adamw", "learning_rate": 1e-3,
    "settings": {"adjust_lr_fn": "match_rms_adamw"},
}  # fmt: skip

SCHEDULES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "constant": ({}, "constant_with_warmup", {}),
    "linear": ({"schedule": "linear"}, "linear", {}),
    "cosine": ({"schedule": "cosine"}, "cosine", {}),
    "cosine to a minimum": (
        {"schedule": "cosine", "min_learning_rate": 0.02}, "cosine_with_min_lr", {"min_lr": 0.02}
    ),
    "linear to a minimum": (
        {"schedule": "linear", "min_learning_rate": 0.02}, "polynomial", {"lr_end": 0.02}
    ),
    "restarts": (
        {"schedule": "cosine_restarts", "cycles": 3}, "cosine_with_restarts", {"num_cycles": 3}
    ),
    "inverse square root": ({"schedule": "inverse_sqrt"}, "inverse_sqrt", {}),
    "wsd": (
        {"schedule": "wsd", "decay_ratio": 0.25}, "warmup_stable_decay",
        {"num_decay_steps": 10, "decay_type": "linear"},
    ),
    "wsd, cosine, to a minimum": (
        {"schedule": "wsd", "decay_ratio": 0.5, "decay_shape": "cosine",
         "min_learning_rate": 0.02},
        "warmup_stable_decay", {"num_decay_steps": 20, "decay_type": "cosine", "min_lr_ratio": 0.2},
    ),
    "wsd, square root": (
        {"schedule": "wsd", "decay_shape": "sqrt"}, "warmup_stable_decay",
        {"num_decay_steps": 4, "decay_type": "1-sqrt"},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("warmup", [0, 8])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_has_the_values_of_transformers(kind: str, warmup: int) -> None:
    changes, name, options = SCHEDULES[kind]
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=warmup, **changes)
    weight = nn.Parameter(torch.zeros(1))
    oracle = get_scheduler(
        name, torch.optim.SGD([weight], lr=0.1), num_warmup_steps=warmup,
        num_training_steps=41, scheduler_specific_kwargs=options,
    )  # fmt: skip
    expected = []
    for _ in range(40):
        oracle.step()
        expected.append(oracle.get_last_lr()[0])

    found = [learning_rate(step, total=40, config=config) for step in range(1, 41)]

    first = warmup if "min_lr_ratio" in options else 0  # whose warm-up begins at the minimum
    assert found[first:] == pytest.approx(expected[first:], rel=1e-12)
    assert all(rate > 0 for rate in found)


def test_a_warmup_may_be_a_share_of_the_steps() -> None:
    share = OptimizerConfig(learning_rate=0.1, warmup_ratio=0.21, schedule="cosine")
    steps = OptimizerConfig(learning_rate=0.1, warmup_steps=9, schedule="cosine")
    for step in range(1, 41):
        rates = [learning_rate(step, total=40, config=config) for config in (share, steps)]
        assert rates[0] == rates[1]


UNUSED: dict[str, tuple[dict[str, Any], str]] = {
    "betas of RMSprop": ({"name": "rmsprop", "betas": [0.9, 0.95]}, "betas is not used by rmsprop"),
    "betas of a class": ({"name": "torch.optim:SGD", "betas": [0.9, 0.95]}, "write it in settings"),
    "settings of AdamW": ({"settings": {"amsgrad": True}}, "settings is not used by adamw"),
    "the rate in settings": ({"name": "a:B", "settings": {"lr": 1}}, "settings.lr is not"),
    "rest of AdamW": ({"rest": "adamw"}, "rest is not used by adamw"),
    "a rate of no rest": ({"name": "a:B", "rest_learning_rate": 0.1}, "needs `rest`"),
    "two warm-ups": ({"warmup_steps": 3, "warmup_ratio": 0.1}, "give one"),
    "a minimum of constant": ({"min_learning_rate": 1e-9}, "not used by constant"),
    "a minimum above": ({"schedule": "linear", "min_learning_rate": 1.0}, "below learning_rate"),
    "cycles of cosine": ({"schedule": "cosine", "cycles": 2}, "need each other"),
    "restarts without cycles": ({"schedule": "cosine_restarts"}, "need each other"),
    "a decay of cosine": ({"schedule": "cosine", "decay_ratio": 0.1}, "decay_ratio is not used"),
    "a decay without weight_decay": ({"decay_all": True}, "needs a weight_decay"),
    "an unknown optimizer": ({"name": "lion"}, "'lion' is not an optimizer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNUSED)
def test_what_is_not_used_is_refused(kind: str, config_of: ConfigOf) -> None:
    changes, problem = UNUSED[kind]
    with pytest.raises(UsageError, match="T122") as caught:
        config_of(optimizer=changes)
    assert problem in caught.value.problem


def test_norms_and_biases_do_not_decay_as_in_transformers(arena: Arena, tmp_path: Path) -> None:
    model = GPT2LMHeadModel.from_pretrained(arena.model)
    decayed = Trainer(model, TrainingArguments(tmp_path)).get_decay_parameter_names(model)
    config = OptimizerConfig(weight_decay=0.1)

    first, second = make_optimizer(model, config).param_groups

    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {names[id(weight)] for weight in first["params"]}
    assert found == set(decayed) & set(names.values()), "transformers lists a tied head twice"
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)
    whole = config.model_copy(update={"decay_all": True})
    assert len(make_optimizer(model, whole).param_groups) == 1


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_betas_and_eps_reach_the_optimizer(name: str) -> None:
    betas = {"betas": (0.8, 0.95)} if name == "adamw" else {}
    config = OptimizerConfig(name=name, learning_rate=0.1, eps=1e-3, **betas)
    kind = {"adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}[name]
    layers = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    ours = make_optimizer(layers[0], config)
    theirs = kind(layers[1].parameters(), lr=0.1, eps=1e-3, weight_decay=0.0, **betas)
    for _ in range(3):
        gradient = torch.randn(4, 4)
        for layer, optimizer in zip(layers, (ours, theirs), strict=True):
            layer.weight.grad = gradient.clone()
            optimizer.step()

    torch.testing.assert_close(layers[0].weight, layers[1].weight, rtol=1e-6, atol=1e-7)


def test_muon_is_torchs_for_matrices_and_adamw_for_the_rest(arena: Arena) -> None:
    models = [GPT2LMHeadModel.from_pretrained(arena.model) for _ in range(2)]
    ours = make_optimizer(models[0], OptimizerConfig(**MUON, rest_learning_rate=1e-2))
    inner = [w for name, w in models[1].named_parameters() if ".h." in name and w.ndim == 2]
    rest = [w for name, w in models[1].named_parameters() if not (".h." in name and w.ndim == 2)]
    theirs = [
        torch.optim.Muon(inner, lr=1e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-2, weight_decay=0.0, fused=True),
    ]
    for step in range(1, 4):
        torch.manual_seed(step)
        for one, other in zip(*(model.parameters() for model in models), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        set_rate(ours, 1e-3 * step)
        for optimizer, scale in zip(theirs, (1e-3, 1e-2), strict=True):
            optimizer.param_groups[0]["lr"] = scale * step
        for optimizer in (ours, *theirs):
            optimizer.step()

    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_two_optimizers_in_one_resume_bit_by_bit(arena: Arena, tmp_path: Path) -> None:
    config = OptimizerConfig(**MUON)
    models = [GPT2LMHeadModel.from_pretrained(arena.model) for _ in range(2)]
    first, second = (make_optimizer(model, config) for model in models)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight)
        optimizer.step()

    step(models[0], first, 1)
    state = Saved(step=1, fingerprint="")
    path = save_checkpoint(tmp_path, state, model=models[0], optimizer=first)
    files = {file.name: (0, "") for file in path.glob("*.safetensors")}
    state = state.model_copy(update={"files": files})
    load_checkpoint(path, state, model=models[1], optimizer=second)
    for model, optimizer in zip(models, (first, second), strict=True):
        step(model, optimizer, 2)

    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


SETTINGS: dict[str, dict[str, Any]] = {
    "muon": MUON,
    "momentum": {"name": "torch.optim:SGD", "settings": {"momentum": 0.9}},
    "adamw": {"weight_decay": 0.1, "betas": [0.8, 0.95], "warmup_ratio": 0.4, "schedule": "wsd"},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_run_resumes_bit_by_bit(kind: str, config_of: ConfigOf, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-3} | SETTINGS[kind]
    whole = config_of(optimizer=settings, steps=4, checkpoint_every=2, eval_split=None)
    train(whole)
    resumed = whole.model_copy(update={"out": tmp_path / "resumed"})
    shutil.copytree(whole.out / "checkpoints", resumed.out / "checkpoints")
    heard: list[str] = []

    train(resumed, on_message=heard.append)

    assert "resumes after step 2" in heard
    one, other = (config.out / "model/model.safetensors" for config in (whole, resumed))
    assert one.read_bytes() == other.read_bytes()


def test_a_setting_of_the_optimizer_is_another_run(config_of: ConfigOf) -> None:
    train(config_of(optimizer={"learning_rate": 1e-3, "betas": [0.9, 0.95]}, steps=1))

    with pytest.raises(UsageError, match=r"optimizer.betas.1 0.95 there, 0.99 here.*T141"):
        train(config_of(optimizer={"learning_rate": 1e-3, "betas": [0.9, 0.99]}, steps=1))


def test_the_command_takes_every_key(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(
        eval_splits=[], eval_samples=1, eval_every=1, reference=None, loss={"name": "simpo"},
        optimizer=MUON | {"rest_learning_rate": 1e-4, "betas": [0.9, 0.95], "eps": 1e-7,
                          "warmup_ratio": 0.3, "schedule": "cosine_restarts", "cycles": 2,
                          "min_learning_rate": 1e-5, "weight_decay": 0.1, "decay_all": True},
    )  # fmt: skip
    (tmp_path / "train.yaml").write_text(
        yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True))
    )
    command = [sys.executable, "-m", "dpo", "train.yaml", "optimizer.betas=[0.8, 0.9]"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "without reference log-probs" in done.stderr
    summary = json.loads((config.out / "run.json").read_text())
    assert summary["config"]["optimizer"]["betas"] == [0.8, 0.9]
    assert (config.out / "samples.jsonl").read_text().count("\n") == 3


def test_a_new_key_changes_no_fingerprint_of_earlier_runs() -> None:
    assert OptimizerConfig().model_dump() == {
        "name": "adamw", "learning_rate": 1e-6, "warmup_steps": 0, "schedule": "constant",
        "weight_decay": 0.0, "max_grad_norm": 1.0,
    }  # fmt: skip


OWN = """
import torch

class Secret(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.count = 0
    def step(self, closure=None):
        self.count += 1
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data.sub_(weight.grad * group["lr"] * self.count)

class NotOne:
    pass
"""


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"name": "own_optimizers:Secret"}, "other steps after a checkpoint"),
        ({"name": "own_optimizers:Secret", "weight_decay": 0.1}, "takes no weight_decay"),
        ({"name": "own_optimizers:NotOne"}, "is not a subclass"),
        ({"name": "own_optimizers:Absent"}, "is not a subclass"),
        ({"name": "no_such_module:Any"}, "cannot be imported"),
        ({"name": "torch.optim:LBFGS"}, "cannot be resumed"),
        ({"name": "torch.optim:SGD", "settings": {"speed": 3}}, "unexpected keyword argument"),
        ({"name": "torch.optim:Muon"}, "Muon only supports 2D"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_optimizer_that_cannot_be_used_is_refused_before_any_step(
    settings: dict[str, Any], problem: str, arena: Arena, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "own_optimizers.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = GPT2LMHeadModel.from_pretrained(arena.model)

    with pytest.raises(UsageError, match="T147") as caught:
        make_optimizer(model, OptimizerConfig(**settings))
    assert problem in caught.value.problem


def test_an_adapter_is_all_matrices(config_of: ConfigOf) -> None:
    settings = {"name": "torch.optim:Muon", "learning_rate": 1e-2}
    out = train(config_of(optimizer=settings, lora={"r": 2}, steps=2, eval_split=None)).out

    assert (out / "model/model.safetensors").exists()
