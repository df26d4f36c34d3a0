"""What a run leaves: reloaded by transformers and peft it is the policy that the run ended with."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo.artifacts.rescore import Probe, gaps, probe
from dpo.config import TrainConfig
from dpo.errors import TrainingError, UsageError
from dpo.reference_pass import compute_reference
from dpo.training import loop
from dpo.training.loop import train
from tests.dpo.conftest import Arena, build_pairs, open_alone, save_llama, train_open

ConfigOf = Callable[..., TrainConfig]
RATE = {"learning_rate": 1e-2}


def arena_of(folder: Path, **changes: Any) -> dict[str, str]:
    """Return a Llama and a build with its reference, as settings."""
    model = save_llama(folder / "base", **changes)
    data = build_pairs(folder / "data", tokenizer=model, count=12)
    compute_reference(data, model=str(model))
    return {"model": str(model), "data": str(data)}


def trained(config: TrainConfig) -> tuple[Probe, list[str]]:
    """Train; return log-probs of the policy at the end of the run, and what was said."""
    run = open_alone(config)
    heard: list[str] = []
    train_open(run, heard.append)
    return probe(run.policy, run.train.pairs), heard


def stored(folder: Path) -> dict[str, Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens"], ["embed_tokens", "q_proj"]])
def test_model_and_adapter_read_back_are_the_policy(
    tied: bool, targets: Any, config_of: ConfigOf, tmp_path: Path
) -> None:
    made = arena_of(tmp_path, tie_word_embeddings=tied)
    lora = {"r": 4, "targets": targets}
    config = config_of(**made, lora=lora, steps=6, optimizer=RATE)
    wanted, _ = trained(config)
    model = AutoModelForCausalLM.from_pretrained(config.out / "model")
    base = AutoModelForCausalLM.from_pretrained(made["model"])
    assert gaps(base, wanted).max() > 0.01, "it learned"
    adapted = PeftModel.from_pretrained(base, config.out / "adapter")

    assert gaps(model, wanted).max() <= 1e-4
    assert gaps(adapted.get_base_model(), wanted).max() <= 1e-4
    assert model.config.tie_word_embeddings == (tied and targets == "all-linear")


def test_the_head_as_a_target_is_named_as_the_fault(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(**arena_of(tmp_path), lora={"targets": ["lm_head"]})

    with pytest.raises(UsageError, match=r"lora\.targets: includes the head.*T127"):
        open_alone(config)


def in_bf16(model: str) -> None:
    """Store a checkpoint's weights as bfloat16."""
    file = Path(model) / "model.safetensors"
    rounded = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(rounded, file, metadata={"format": "pt"})
    config = json.loads((Path(model) / "config.json").read_text())
    (Path(model) / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_a_bf16_base_comes_back_as_bf16_and_its_rounding_is_stated(
    lora: Any, config_of: ConfigOf, tmp_path: Path
) -> None:
    model = save_llama(tmp_path / "base")
    in_bf16(str(model))
    data = build_pairs(tmp_path / "data", tokenizer=model, count=12)
    compute_reference(data, model=str(model))
    config = config_of(model=str(model), data=str(data), lora=lora, steps=4, weights="float32")
    wanted, heard = trained(config)
    saved = stored(config.out / "model")

    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert saved.keys() == stored(model).keys()
    notices = [line for line in heard if "rounding to its dtype" in line]
    assert len(notices) == 1
    assert "prefdata-tmp" not in notices[0]
    lost = gaps(AutoModelForCausalLM.from_pretrained(config.out / "model", dtype="float32"), wanted)
    assert f"{lost.max():.2g} at most" in notices[0]
    assert (config.out / "model" / "config.json").read_bytes() == (
        model / "config.json"
    ).read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_dtype_may_be_chosen(dtype: str, config_of: ConfigOf) -> None:
    config = config_of(save={"dtype": dtype})
    _, heard = trained(config)

    assert {str(t.dtype) for t in stored(config.out / "model").values()} == {f"torch.{dtype}"}
    assert AutoModelForCausalLM.from_pretrained(config.out / "model").dtype == getattr(torch, dtype)
    assert any("rounding" in line for line in heard) == (dtype != "float32")


def test_files_of_the_tokenizer_are_the_bases_byte_for_byte(
    config_of: ConfigOf, arena: Arena, tmp_path: Path
) -> None:
    base = shutil.copytree(arena.model, tmp_path / "base")
    own = {
        "special_tokens_map.json": '{"eos_token": "<|im_end|>"}\n', "vocab.json": "{ }\n",
        "tokenizer.model": "spm\n", "merges.txt": "a b\n", "LICENSE": "as is\n",
        "preprocessor_config.json": "{ }\n",
    }  # fmt: skip
    for name, text in own.items():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(text)
    (base / "README.md").write_text("of the base")
    (base / "modeling.py").write_text("raise SystemExit")
    config = config_of(model=str(base))
    train(config)
    out = config.out / "model"

    for file in base.rglob("*"):
        if file.is_file() and file.suffix != ".safetensors" and file.name != "README.md":
            is_kept = file.name != "modeling.py"
            assert (out / file.relative_to(base)).is_file() == is_kept
            if is_kept:
                assert (out / file.relative_to(base)).read_bytes() == file.read_bytes()
    assert "of the base" not in (out / "README.md").read_text()
    AutoTokenizer.from_pretrained(out)


def test_a_large_model_is_written_in_several_files(config_of: ConfigOf) -> None:
    config = config_of(save={"max_shard_size": "30KB"})
    wanted, _ = trained(config)
    files = sorted(path.name for path in (config.out / "model").glob("model-*.safetensors"))

    assert len(files) > 2
    assert files[0].endswith(f"-of-{len(files):05d}.safetensors")
    assert gaps(AutoModelForCausalLM.from_pretrained(config.out / "model"), wanted).max() <= 1e-4
    listed = json.loads((config.out / "run.json").read_text())["files"]
    assert {f"model/{name}" for name in files} <= listed.keys()


@pytest.mark.parametrize(
    ("save", "left"),
    [
        ({}, {"model", "adapter"}), ({"merged": False}, {"adapter"}),
        ({"adapter": False}, {"model"}),
    ],
)  # fmt: skip
def test_what_is_saved_is_chosen(
    save: Mapping[str, bool], left: set[str], config_of: ConfigOf
) -> None:
    config = config_of(lora={"r": 4}, save=save)
    train(config)

    assert {path.name for path in config.out.iterdir() if path.is_dir()} == left
    train(config)  # it is finished
    if left == {"adapter"}:
        AutoTokenizer.from_pretrained(config.out / "adapter")
        assert "PeftModel" in (config.out / "adapter" / "README.md").read_text()


@pytest.mark.parametrize(
    ("lora", "save"),
    [
        (None, {"merged": False}), (None, {"adapter": False}),
        ({"r": 4}, {"merged": False, "adapter": False}),
        ({"r": 4}, {"merged": False, "dtype": "bfloat16"}),
    ],
)  # fmt: skip
def test_a_save_that_leaves_nothing_or_has_no_effect_is_refused(
    lora: Any, save: Mapping[str, Any], config_of: ConfigOf
) -> None:
    with pytest.raises(UsageError, match=r"save\..*T122"):
        config_of(lora=lora, save=save)


def test_tensors_that_the_model_does_not_have_stay(config_of: ConfigOf, tmp_path: Path) -> None:
    made = arena_of(tmp_path)
    file = Path(made["model"]) / "model.safetensors"
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(4.0)}
    save_file(load_file(file) | more, file, metadata={"format": "pt"})
    config = config_of(**made)
    train(config)

    assert stored(config.out / "model").keys() == stored(Path(made["model"])).keys()


def test_names_without_the_models_prefix_are_kept(config_of: ConfigOf, arena: Arena) -> None:
    """The files of `gpt2` have names like `h.0…`, and transformers writes `transformer.h.0…`."""
    file = arena.model / "model.safetensors"
    before = load_file(file)
    short = {name.removeprefix("transformer."): tensor for name, tensor in before.items()}
    save_file(short, file, metadata={"format": "pt"})
    try:
        config = config_of()
        wanted, _ = trained(config)
    finally:
        save_file(before, file, metadata={"format": "pt"})

    assert stored(config.out / "model").keys() == short.keys()
    assert gaps(AutoModelForCausalLM.from_pretrained(config.out / "model"), wanted).max() <= 1e-4


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_another_model_than_the_trained_one_is_never_placed(
    lora: Any, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lies(policy: Any, pairs: Any, **options: Any) -> Probe:
        found = probe(policy, pairs, **options)
        return found._replace(logps_n=found.logps_n - 0.01)

    monkeypatch.setattr(loop, "probe", lies)
    config = config_of(lora=lora)
    with pytest.raises(TrainingError, match="T311"):
        train(config)

    assert not (config.out / "model").exists()
    assert not (config.out / "run.json").exists()


def test_a_checkpoint_that_stores_a_tied_head_keeps_it(config_of: ConfigOf, tmp_path: Path) -> None:
    made = arena_of(tmp_path, tie_word_embeddings=True)
    file = Path(made["model"]) / "model.safetensors"
    tensors = load_file(file)
    more = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(tensors | more, file, metadata={"format": "pt"})
    config = config_of(**made)
    train(config)
    saved = stored(config.out / "model")

    assert torch.equal(saved["lm_head.weight"], saved["model.embed_tokens.weight"])
    assert not torch.equal(saved["lm_head.weight"], more["lm_head.weight"])
