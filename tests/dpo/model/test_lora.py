"""Adapters start as the reference, are all that trains, and merge into an ordinary checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import tiny_models
from dpo.config import LoraSettings, TrainConfig
from dpo.errors import UsageError
from dpo.model.lora import add_lora
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from dpo.training.setup import TrainContext
from dpo.training.step import backward_pass, packs_of
from tests.dpo.conftest import Arena, build_pairs, open_alone
from tests.dpo.model.test_policy import FAMILIES, model_of
from tests.dpo.tiny import tiny_tokenizer

ConfigOf = Callable[..., TrainConfig]
LORA = {"r": 4, "alpha": 8}


def losses(out: Path) -> list[float]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [value["loss"] for line in lines if "loss" in (value := json.loads(line))]


@pytest.mark.parametrize("lora", [LORA, LORA | {"dora": True}, LORA | {"rslora": True}])
def test_an_adapter_starts_at_ln_2_and_learns(lora: dict[str, object], config_of: ConfigOf) -> None:
    config = config_of(lora=lora, steps=20, optimizer={"learning_rate": 1e-2})

    train(config)  # the first loss is checked to be ln 2
    assert losses(config.out)[-1] < 0.6


def test_only_the_adapter_moves_and_is_in_checkpoints(config_of: ConfigOf, arena: Arena) -> None:
    config = config_of(lora=LORA, steps=3, checkpoint_every=1)
    run = open_alone(config)
    trained = {name for name, weight in run.policy.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)

    train(config)
    saved = load_file(config.out / "checkpoints" / "step-00000002" / "weights.safetensors")
    assert {f"model.{name}" for name in saved} == trained
    base = load_file(arena.model / "model.safetensors")
    final = load_file(config.out / "model" / "model.safetensors")
    moved = [name for name, weight in base.items() if not torch.equal(weight, final[name])]
    assert moved
    assert all(base[name].dim() == 2 and "wte" not in name for name in moved)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_the_merged_model_gives_the_log_probs_of_base_and_adapter(
    config_of: ConfigOf, arena: Arena
) -> None:
    config = config_of(lora=LORA, steps=5, optimizer={"learning_rate": 1e-2})
    train(config)
    ids = AutoTokenizer.from_pretrained(config.out / "model")(
        "Tell me a story", return_tensors="pt"
    )
    merged = AutoModelForCausalLM.from_pretrained(config.out / "model").eval()
    base = AutoModelForCausalLM.from_pretrained(arena.model).eval()
    with torch.no_grad():
        before = base(**ids).logits
        wanted = PeftModel.from_pretrained(base, config.out / "adapter").eval()(**ids).logits
        found = merged(**ids).logits

    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)


def test_a_run_with_an_adapter_resumes_bit_by_bit(config_of: ConfigOf, tmp_path: Path) -> None:
    settings = {"lora": LORA | {"dropout": 0.1}, "dropout": True, "steps": 6, "checkpoint_every": 1}
    whole, died = config_of(**settings), config_of(**settings, out=str(tmp_path / "died"))
    train(whole)
    name = "step-00000004"
    shutil.copytree(whole.out / "checkpoints" / name, died.out / "checkpoints" / name)
    train(died)

    left, right = (load_file(c.out / "model" / "model.safetensors") for c in (whole, died))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_an_unknown_layer_is_named(config_of: ConfigOf) -> None:
    with pytest.raises(UsageError, match="T127"):
        open_alone(config_of(lora={"targets": ["nothing"]}))


def gradients(run: TrainContext) -> dict[str, torch.Tensor]:
    backward_pass(run, packs_of(run, 1), 1)
    return {
        name: weight.grad
        for name, weight in run.policy.named_parameters()
        if weight.grad is not None
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [None, LORA])
def test_gradient_checkpointing_changes_only_rounding(
    family: str, lora: dict[str, object] | None, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    tiny_tokenizer().save_pretrained(model)
    model_of(family, vocab_size=len(tiny_tokenizer())).save_pretrained(model)
    data = build_pairs(tmp_path / "data", tokenizer=model, count=8, test_fraction=0.0)
    compute_reference(data, model=str(model))
    value: dict[str, Any] = {"model": str(model), "data": str(data), "out": str(tmp_path / "run")}
    value |= {"global_batch_size": 4, "steps": 1, "lora": lora, "eval_split": None}
    found = []
    for again in (False, True):
        config = TrainConfig(**value, gradient_checkpointing=again)
        run = open_alone(config)
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in run.policy.parameters():
                weight += 0.02 * torch.randn_like(weight)
        found.append(gradients(run))

    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        scale = gradient.abs().max().clamp(min=1e-6)
        assert ((gradient - found[1][name]).abs().max() / scale) <= 1e-4, name


@pytest.mark.parametrize(
    ("family", "left_out"),
    [
        ("mamba", {"out_proj"}),
        ("falcon_mamba", {"out_proj"}),
        ("nemotron_h", {"out_proj"}),
        ("falcon_h1", {"out_proj"}),
        ("phimoe", {"router"}),
        ("llama4_text", {"router"}),
        ("deepseek_v4", {"o_a_proj"}),
        ("falcon", set()),
        ("llama", set()),
    ],
)
def test_the_default_leaves_out_what_cannot_have_an_adapter(
    family: str, left_out: set[str]
) -> None:
    """Check that a step of the adapter can be taken, and that the rest is adapted."""
    model = tiny_models.model_of(tiny_models.config_of(family))
    ids = torch.arange(3, 30)[None]
    before = model(input_ids=ids, use_cache=False).logits

    notice = add_lora(model, LoraSettings(), seed=0)

    assert (notice is None) == (not left_out)
    assert all(name in (notice or "") for name in left_out)
    after = model(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    after.sum().backward()
    trained = {name for name, w in model.named_parameters() if w.requires_grad}
    assert len(trained) >= 8
    assert not any(f".{name}.lora" in adapted for name in left_out for adapted in trained)
    assert any(w.grad.abs().sum() > 0 for n, w in model.named_parameters() if n in trained)


def test_layers_that_are_named_and_cannot_have_one_are_refused() -> None:
    settings = LoraSettings(targets=("out_proj",))

    with pytest.raises(UsageError, match=r"out_proj.*incompatible.*T127"):
        add_lora(tiny_models.model_of(tiny_models.config_of("mamba")), settings, seed=0)
