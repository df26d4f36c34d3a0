"""Several evaluation splits, and samples of fixed prompts at each evaluation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prefdata
from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.training.loop import train
from tests.dpo.conftest import Arena
from tests.dpo.training.test_eval_split import data_of

ConfigOf = Callable[..., TrainConfig]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_split_is_evaluated_under_its_name(
    arena: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    data = data_of(arena, tmp_path, "train", "test", "safety", "code")
    further = config_of(data=data, eval_splits=["safety", "code"], steps=2)
    alone = config_of(data=data, eval_split="safety", steps=2, out=str(tmp_path / "alone"))
    none = config_of(
        data=data, eval_split=None, eval_splits=["code"], steps=2, out=str(tmp_path / "none")
    )

    found = lines(train(further).out / "metrics.jsonl")[-1]
    expected = lines(train(alone).out / "metrics.jsonl")[-1]
    only = lines(train(none).out / "metrics.jsonl")[-1]

    assert {"eval/loss", "eval/safety/loss", "eval/code/rewards/margins"} <= found.keys()
    for name in ("loss", "rewards/accuracies", "logps/chosen"):
        assert found[f"eval/safety/{name}"] == expected[f"eval/{name}"]
        assert found[f"eval/code/{name}"] == only[f"eval/code/{name}"]
    assert "eval/loss" not in only


def test_a_split_that_is_not_there_or_evaluated_twice_is_refused(config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match=r"no split 'safety'.*T124"):
        train(config_of(eval_splits=["safety"]))
    with pytest.raises(UsageError, match=r"evaluates 'test' twice.*T124"):
        train(config_of(eval_splits=["test"]))
    with pytest.raises(UsageError, match=r"eval_splits lists a split twice.*T122"):
        config_of(eval_splits=["a", "a"])


def test_samples_are_what_the_policy_says_greedily(config_of: ConfigOf, arena: Arena) -> None:
    config = config_of(eval_samples={"prompts": 3, "max_new_tokens": 6}, eval_every=2, steps=4)

    out = train(config).out

    first, last = lines(out / "samples.jsonl")
    assert (first["step"], last["step"]) == (2, 4)
    model = AutoModelForCausalLM.from_pretrained(out / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    build = prefdata.open(arena.data)
    prompts = []
    for ids in build.shards("test")[0].read()["prompt_ids"].to_pylist():
        if ids not in prompts:
            prompts.append(ids)
    assert len(last["samples"]) == 3
    for ids, one in zip(prompts, last["samples"], strict=False):
        given = torch.tensor([ids])
        mask = torch.ones_like(given)  # the padding token is in the prompt
        found = model.generate(given, attention_mask=mask, max_new_tokens=6, do_sample=False)
        expected = found[0, len(ids) :].tolist()
        assert one["completion"] == tokenizer.decode(expected, skip_special_tokens=True)
        assert one["prompt"] == tokenizer.decode(ids)
    page = (out / "report.html").read_text()
    assert "Samples" in page
    assert "step 4" in page


def test_samples_change_no_step(config_of: ConfigOf, tmp_path: Path) -> None:
    settings = {"dropout": True, "eval_every": 1, "gradient_checkpointing": True}
    plain = train(config_of(**settings, out=str(tmp_path / "plain"))).out
    drawn = config_of(
        **settings, eval_samples={"prompts": 2, "max_new_tokens": 4, "temperature": 0.7}
    )
    train(drawn)

    one, other = (out / "model/model.safetensors" for out in (plain, drawn.out))
    assert one.read_bytes() == other.read_bytes()
    assert len(lines(drawn.out / "samples.jsonl")) == 3


def test_a_resumed_run_has_each_sample_once(config_of: ConfigOf, tmp_path: Path) -> None:
    settings = {
        "eval_samples": {"prompts": 2, "max_new_tokens": 4, "temperature": 1.0, "top_p": 0.9},
        "eval_every": 1, "checkpoint_every": 2, "steps": 4,
    }  # fmt: skip
    whole = config_of(**settings)
    train(whole)
    resumed = whole.model_copy(update={"out": tmp_path / "resumed"})
    shutil.copytree(whole.out / "checkpoints", resumed.out / "checkpoints")
    shutil.copy(whole.out / "samples.jsonl", resumed.out)

    train(resumed)

    assert lines(resumed.out / "samples.jsonl") == lines(whole.out / "samples.jsonl")


def test_a_number_is_the_number_of_prompts(config_of: ConfigOf) -> None:
    settings = config_of(eval_samples=5).eval_samples

    assert settings is not None
    assert (settings.prompts, settings.temperature) == (5, 0.0)


def test_samples_that_cannot_be_drawn_are_refused(config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match=r"eval_samples needs an eval_split.*T122"):
        config_of(eval_samples=2, eval_split=None)
    with pytest.raises(UsageError, match=r"top_p is not used at temperature 0.*T122"):
        config_of(eval_samples={"prompts": 2, "top_p": 0.5})
    with pytest.raises(UsageError, match=r"do not fit the model's 256.*T148"):
        train(config_of(eval_samples={"prompts": 2, "max_new_tokens": 250}))
