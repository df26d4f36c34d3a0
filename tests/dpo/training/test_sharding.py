"""Weights sharded over two processes (FSDP2) as pipelines/accelerate/fsdp2.yaml asks for it."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dpo.config import TrainConfig
from dpo.reference_pass import compute_reference
from tests.dpo.conftest import Arena, build_pairs, save_llama
from tests.dpo.model.zoo import longrope
from tests.dpo.training.test_distributed import lines, run_in, run_in_one_and_in_two, write_config

ConfigOf = Callable[..., TrainConfig]
RECIPES = Path(__file__).parents[3] / "pipelines" / "accelerate"
FSDP2 = {"ACCELERATE_USE_FSDP": "true"} | {
    key.upper(): str(value)
    for key, value in yaml.safe_load((RECIPES / "fsdp2.yaml").read_text())["fsdp_config"].items()
}
"""Environment that `accelerate launch` sets from the file; on CPUs it starts one process."""


BF16 = 1e-4
"""Maximum difference of losses under bf16."""


def losses_of(out: Path) -> list[float]:
    return [line["loss"] for line in lines(out / "metrics.jsonl") if "loss" in line]


def assert_alike(one: Path, two: Path) -> None:
    """Check that two runs have the same pairs and losses, and models with the same outputs."""
    assert lines(one / "pairs.jsonl") == lines(two / "pairs.jsonl")
    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        if "loss" in left:
            assert abs(left["loss"] - right["loss"]) <= 1e-5
            assert left["grad_norm"] == pytest.approx(right["grad_norm"], rel=1e-4)
        else:
            assert left["eval/loss"] == pytest.approx(right["eval/loss"], abs=1e-5)
    ours, theirs = (load_file(out / "model" / "model.safetensors") for out in (one, two))
    assert {name: t.shape for name, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    models = (AutoModelForCausalLM.from_pretrained(out / "model").eval() for out in (one, two))
    with torch.no_grad():  # weights may differ if their gradient is only noise
        logits, others = (model(torch.arange(40)[None]).logits for model in models)
    assert torch.allclose(logits, others, atol=1e-3)


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_accelerate_reads_a_recipe(name: str) -> None:
    config = load_config_from_file(str(RECIPES / f"{name}.yaml"))

    assert config.distributed_type == {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}[name]


def test_twenty_steps_are_those_of_one_process_and_so_is_what_resumes_them(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    """Packs do not divide evenly, and evaluation gathers weights that a checkpoint then needs."""
    config = config_of(
        global_batch_size=5, steps=20, pack_tokens=90, eval_every=6, checkpoint_every=6,
        log_pairs=True, keep_checkpoints=9,
    )  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config)
    one, two = run_in_one_and_in_two(path, tmp_path, **FSDP2)

    assert_alike(one, two)
    kinds = ("optimizer", "weights")
    wanted = {f"{kind}-0000{part}-of-00002.safetensors" for kind in kinds for part in (1, 2)}
    saved = two / "checkpoints" / "step-00000012"
    assert {file.name for file in saved.iterdir()} == wanted | {"state.json"}
    for processes, source in ((1, two), (2, one)):  # each continues from the other's checkpoint
        out = tmp_path / f"again-{processes}"
        shutil.copytree(source / "checkpoints" / saved.name, out / "checkpoints" / saved.name)
        for name in ("metrics.jsonl", "pairs.jsonl"):
            shutil.copy(source / name, out)
        run_in(processes, path, out, **FSDP2)
        assert_alike(source, out)


def test_an_adapter_and_coupled_losses_on_a_model_with_buffers(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    model = save_llama(tmp_path / "model")
    data = build_pairs(tmp_path / "data", tokenizer=model)
    compute_reference(data, model=str(model))
    changes: dict[str, Any] = {
        "model": str(model), "data": str(data), "steps": 4, "pack_tokens": 90, "log_pairs": True,
        "global_batch_size": 5, "lora": {"r": 4}, "loss": [{"name": "aot"}, {"name": "dr_dpo"}],
    }  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config_of(**changes))
    one, two = run_in_one_and_in_two(path, tmp_path, **FSDP2)

    assert_alike(one, two)
    ours, theirs = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, two))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_ranks_make_as_many_passes_where_texts_run_in_rows_of_their_own(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    """Sharded weights are gathered by all ranks at once; packs have texts of one side or two."""
    model = save_llama(
        tmp_path / "model",
        rope_parameters=longrope() | {"original_max_position_embeddings": 45},
    )
    data = build_pairs(tmp_path / "data", tokenizer=model)
    compute_reference(data, model=str(model))
    changes: dict[str, Any] = {
        "model": str(model), "data": str(data), "steps": 4, "pack_tokens": 250, "log_pairs": True,
        "global_batch_size": 5,
    }  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config_of(**changes))
    one, two = run_in_one_and_in_two(path, tmp_path, **FSDP2)

    assert_alike(one, two)


def test_twenty_steps_in_bf16_are_those_of_one_process(config_of: ConfigOf, tmp_path: Path) -> None:
    """Matrices are gathered as bfloat16, all else as float32: the casts are those of autocast."""
    model = save_llama(tmp_path / "model")
    data = build_pairs(tmp_path / "data", tokenizer=model)
    compute_reference(data, model=str(model), mixed_precision="bf16")
    changes: dict[str, Any] = {
        "model": str(model), "data": str(data), "steps": 20, "pack_tokens": 90, "log_pairs": True,
        "global_batch_size": 5, "mixed_precision": "bf16",
    }  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config_of(**changes))
    one = run_in(1, path, tmp_path / "one")
    ddp = run_in(2, path, tmp_path / "ddp")
    fsdp2 = run_in(2, path, tmp_path / "fsdp2", **FSDP2)

    path.write_text(path.read_text().replace("pack_tokens: 90", "pack_tokens: 60"))
    packed = run_in(1, path, tmp_path / "packed")

    losses = np.array([losses_of(out) for out in (one, ddp, fsdp2, packed)])
    assert losses.shape == (4, 20)
    assert np.abs(losses[:, 0] - math.log(2)).max() <= BF16
    ddp_gap, fsdp2_gap, packed_gap = np.abs(losses[1:] - losses[0]).max(1)
    # AMX rounds by the shape of a product, so other packs have other losses in one process too:
    # 4.4e-4 where DDP had 1.1e-4 and FSDP2 3.5e-5
    assert max(ddp_gap, fsdp2_gap) <= max(BF16, 2 * packed_gap)


def test_rows_and_moments_on_the_host_learn_the_same(config_of: ConfigOf, tmp_path: Path) -> None:
    """With checkpoints of layers, in bf16: an offloaded run is that of one process."""
    model = save_llama(tmp_path / "model")
    data = build_pairs(tmp_path / "data", tokenizer=model)
    compute_reference(data, model=str(model), mixed_precision="bf16")
    changes: dict[str, Any] = {
        "model": str(model), "data": str(data), "steps": 6, "pack_tokens": 90, "log_pairs": True,
        "global_batch_size": 5, "mixed_precision": "bf16", "gradient_checkpointing": True,
        "lora": {"r": 4, "dora": True}, "checkpoint_every": 4,
    }  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config_of(**changes))
    host = FSDP2 | {"FSDP_OFFLOAD_PARAMS": "true"}
    one, two = run_in_one_and_in_two(path, tmp_path, **host)

    assert losses_of(two) == pytest.approx(losses_of(one), abs=BF16)
    ours, theirs = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (one, two))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)


@pytest.mark.parametrize("environment", [{}, FSDP2], ids=["ddp", "fsdp2"])
def test_ranks_agree_on_the_scale_of_fp16(
    environment: dict[str, str], config_of: ConfigOf, arena: Arena, tmp_path: Path
) -> None:
    """A loss so large that its first scale overflows, on one rank's part of the weights or all."""
    data = shutil.copytree(arena.data, tmp_path / "build")
    compute_reference(data, model=str(arena.model), name="half", mixed_precision="fp16")
    config = config_of(
        data=str(data), reference={"name": "half"}, mixed_precision="fp16", pack_tokens=90,
        loss=[{"name": "dpo", "weight": 1e4}], log_pairs=True,
    )  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config)
    one, two = run_in_one_and_in_two(path, tmp_path, **environment)

    assert lines(one / "pairs.jsonl") == lines(two / "pairs.jsonl")
    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        if "loss" in left:
            assert left["loss"] == pytest.approx(right["loss"], rel=1e-3)
            assert max(left["loss_scale"], right["loss_scale"]) < 2**16


def test_an_unsupported_way_to_launch_is_refused(config_of: ConfigOf, tmp_path: Path) -> None:
    path = write_config(tmp_path / "train.yaml", config_of())

    with pytest.raises(AssertionError, match=r"FSDP version 1 is not supported.*T170"):
        run_in(2, path, tmp_path / "out", **FSDP2 | {"FSDP_VERSION": "1"})
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


@pytest.mark.parametrize("environment", [{}, FSDP2], ids=["ddp", "fsdp2"])
def test_muon_and_samples_in_two_processes(
    environment: dict[str, str], config_of: ConfigOf, tmp_path: Path
) -> None:
    """Muon takes whole matrices, and sampling calls the model inside the sharded root."""
    config = config_of(
        steps=4, eval_every=2, checkpoint_every=2, log_pairs=True,
        eval_samples={"prompts": 2, "max_new_tokens": 5},
        optimizer={
            "name": "torch.optim:Muon", "rest": "adamw", "learning_rate": 1e-3,
            "weight_decay": 0.1, "settings": {"adjust_lr_fn": "match_rms_adamw"},
        },
    )  # fmt: skip
    path = write_config(tmp_path / "train.yaml", config)

    one, two = run_in_one_and_in_two(path, tmp_path, **environment)

    for left, right in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        name = "loss" if "loss" in left else "eval/loss"
        assert left[name] == pytest.approx(right[name], abs=1e-3), "Muon multiplies in bfloat16"
    drawn = [[line["samples"] for line in lines(out / "samples.jsonl")] for out in (one, two)]
    assert [[len(some) for some in both] for both in drawn] == [[2, 2]] * 2
    assert drawn[0][0][0]["completion"] == drawn[1][0][0]["completion"]
