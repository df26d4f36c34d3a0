"""The commands end to end on the most used families: reference, three ways to train, samples."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from transformers import AutoConfig

from bench.tiny_models import config_of, model_of
from dpo import cli
from tests.dpo.conftest import build_pairs
from tests.dpo.tiny import tiny_tokenizer
from tests.effort import times

FAMILIES = (
    "llama", "mamba2", "gemma4_text", "gpt_oss", "qwen3_next", "bert",
    "llama4_text", "mistral", "ministral3", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "qwen3_5_text", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "phimoe", "gpt2",
    "gpt_bigcode", "gpt_neox", "opt", "bloom", "falcon", "falcon_h1", "deepseek_v2", "deepseek_v3",
    "olmo2", "olmoe", "cohere2", "granite", "granitemoehybrid", "glm4", "glm4_moe", "starcoder2",
    "stablelm", "smollm3", "nemotron_h", "lfm2", "seed_oss", "exaone4", "ctrl",
)  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "checkpointed": {"gradient_checkpointing": True},
    "lora": {"lora": {"r": 4, "alpha": 8}},
}
NOT_CHECKPOINTED = {"ctrl"}


@pytest.mark.stress
@pytest.mark.filterwarnings("ignore")  # of models and of peft
@pytest.mark.parametrize("family", FAMILIES[: times(5, len(FAMILIES))])
def test_a_family_trains_and_samples(family: str, tmp_path: Path) -> None:
    base = save_family(tmp_path / "base", family)
    data = build_pairs(tmp_path / "data", tokenizer=base, count=24)
    assert_ends_well(run(cli.ref, str(data), "--model", str(base), "--name", family))

    losses = {}
    for way, changes in WAYS.items():
        if way == "checkpointed" and family in NOT_CHECKPOINTED:
            continue
        out = tmp_path / way
        config = tmp_path / f"{way}.yaml"
        config.write_text(yaml.safe_dump(run_of(base, data, out, family) | changes))
        assert_ends_well(run(cli.train, str(config)))
        losses[way] = losses_of(out)
        assert_same_kind(out / "model", base)
    assert losses.get("checkpointed", losses["full"]) == pytest.approx(losses["full"], abs=1e-4)

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Tell me a story."}\n{"prompt": "A dog"}\n')
    words = (
        "--model",
        str(tmp_path / "lora" / "model"),
        "-k",
        "2",
        "-o",
        str(tmp_path / "s.jsonl"),
    )
    assert_ends_well(run(cli.sample, str(prompts), *words, "--max-new-tokens", "4", "--raw"))


def save_family(folder: Path, family: str) -> Path:
    tokenizer = tiny_tokenizer()
    config = config_of(family, vocab_size=320, eos_token_id=tokenizer.eos_token_id)
    if hasattr(config, "vocab_size_per_layer_input"):  # Gemma 4
        config.vocab_size_per_layer_input = 320
    model_of(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run_of(base: Path, data: Path, out: Path, family: str) -> dict[str, Any]:
    return {
        "model": str(base), "data": str(data), "out": str(out), "reference": {"name": family},
        "global_batch_size": 4, "steps": 3, "optimizer": {"learning_rate": 1e-4},
    }  # fmt: skip


def run(command: Any, *words: str) -> Result:
    return CliRunner().invoke(command, list(words))


def assert_ends_well(result: Result) -> None:
    assert result.exit_code == 0, result.output


def losses_of(out: Path) -> list[float]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def assert_same_kind(model: Path, base: Path) -> None:
    """Compare class, names, shapes and dtypes; weights are other, and finite."""
    ours, theirs = AutoConfig.from_pretrained(model), AutoConfig.from_pretrained(base)
    assert (ours.model_type, ours.architectures) == (theirs.model_type, theirs.architectures)
    mine, first = load_file(model / "model.safetensors"), load_file(base / "model.safetensors")
    assert {n: (w.shape, w.dtype) for n, w in mine.items()} == {
        n: (w.shape, w.dtype) for n, w in first.items()
    }
    assert all(bool(weight.isfinite().all()) for weight in mine.values())
    assert any(not torch.equal(weight, first[name]) for name, weight in mine.items())
