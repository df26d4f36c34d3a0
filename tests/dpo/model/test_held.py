"""Weights held in bfloat16 or quantized: as the reference had them, and adapters learn on them."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from dpo.config import TrainConfig
from dpo.errors import DpoError, UsageError
from dpo.model.float32 import in_float32, is_float32
from dpo.model.load import held_in, load_model
from dpo.model.source import ModelSource
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from tests.dpo.conftest import Arena, build_pairs, open_alone, save_llama
from tests.dpo.model.test_lora import losses

pytestmark = pytest.mark.filterwarnings("ignore:.*_check_is_size:FutureWarning")
ConfigOf = Callable[..., TrainConfig]
LORA = {"r": 4, "alpha": 8}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    """Save a Llama with linear layers, which GPT-2 does not have, and its pairs."""
    folder = tmp_path_factory.mktemp("llama")
    model = save_llama(folder / "model")
    return Arena(model, build_pairs(folder / "data", tokenizer=model))


@pytest.fixture
def on_llama(llama: Arena, config_of: ConfigOf) -> ConfigOf:
    def make(held: dict[str, Any], **changes: Any) -> TrainConfig:
        name = "-".join(map(str, held.values())) or "default"
        compute_reference(llama.data, model=ModelSource(str(llama.model), **held), name=name)
        value = {"model": str(llama.model), "data": str(llama.data), "reference": {"name": name}}
        return config_of(**(value | held | changes))

    return make


def in_half(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def quantized(model: Path, folder: Path, **options: Any) -> Path:
    """Save a checkpoint with quantized weights, as bitsandbytes' own."""
    shutil.copytree(model, folder)
    made: Any = BitsAndBytesConfig
    loaded = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=made(**options), device_map={"": "cpu"}, dtype=torch.float32
    )
    loaded.save_pretrained(folder)
    return folder


FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def test_small_steps_train_weights_in_bfloat16(on_llama: ConfigOf, llama: Arena) -> None:
    config = on_llama({"weights": "bfloat16"}, steps=8, optimizer={"learning_rate": 1e-6})

    train(config)  # the first step is checked against the reference
    before = load_model(str(llama.model)).state_dict()
    after = load_model(str(config.out / "model")).state_dict()
    moved = {name for name, weight in before.items() if not weight.bfloat16().equal(after[name])}
    assert {name for name, weight in before.items() if weight.dim() == 2} <= moved


def test_weights_in_bfloat16_learn(on_llama: ConfigOf) -> None:
    config = on_llama({"weights": "bfloat16"}, steps=20, optimizer={"learning_rate": 3e-3})

    train(config)
    assert losses(config.out)[-1] < 0.6


def test_a_run_in_bfloat16_resumes_bit_by_bit(on_llama: ConfigOf, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 5, "checkpoint_every": 1}
    whole = on_llama({"weights": "bfloat16"}, **settings)
    died = on_llama({"weights": "bfloat16"}, **settings, out=str(tmp_path / "died"))
    train(whole)
    name = "step-00000003"
    shutil.copytree(whole.out / "checkpoints" / name, died.out / "checkpoints" / name)
    train(died)

    left, right = (load_file(c.out / "model" / "model.safetensors") for c in (whole, died))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_checks_compare_with_float32(llama: Arena, tmp_path: Path) -> None:
    half = in_half(llama.model, tmp_path / "half")
    wide = load_model(str(half))
    model = load_model(ModelSource(str(half), weights="bfloat16"))
    ids = torch.arange(20)[None]

    with torch.no_grad():
        rounded = model(ids).logits
        with in_float32(model):
            exact = model(ids).logits
        assert torch.equal(model(ids).logits, rounded)
        assert exact.dtype == torch.float32
        assert torch.allclose(exact, wide(ids).logits, atol=1e-5)
    assert is_float32(wide)
    assert not is_float32(model)


@pytest.mark.parametrize(
    "held", [{"quantize": "nf4"}, {"quantize": "int8"}, {"weights": "bfloat16"}], ids=str
)
def test_an_adapter_learns_on_a_base_in_fewer_bits(
    on_llama: ConfigOf, held: dict[str, Any]
) -> None:
    config = on_llama(held, lora=LORA, steps=20, optimizer={"learning_rate": 1e-2})
    heard: list[str] = []

    train(config, on_message=heard.append)  # the first loss is checked to be ln 2

    assert any("merged into the base's own weights" in line for line in heard)
    assert losses(config.out)[-1] < 0.6


@pytest.mark.parametrize(
    ("held", "changes"),
    [
        ({}, {"weights": "bfloat16"}),
        ({"weights": "bfloat16"}, {"weights": "float32"}),
        ({}, {"quantize": "nf4", "lora": LORA}),
        ({"quantize": "nf4"}, {"quantize": "int8", "lora": LORA}),
    ],
)
def test_a_reference_that_was_held_otherwise_is_refused(
    held: dict[str, str], changes: dict[str, Any], on_llama: ConfigOf
) -> None:
    config = on_llama(held, **({"quantize": None, "weights": None} | changes))

    with pytest.raises(DpoError) as caught:
        open_alone(config)
    assert caught.value.code == "T213"
    wanted = next(iter(changes.values()))
    assert f"--{next(iter(changes))} {wanted}" in caught.value.remedy or "--weights" in str(
        caught.value.remedy
    )


def test_null_is_the_checkpoints_own_dtype_only_under_an_adapter(
    llama: Arena, tmp_path: Path
) -> None:
    half = str(in_half(llama.model, tmp_path / "half"))

    assert held_in(ModelSource(half)) == "float32"
    assert held_in(ModelSource(half, is_frozen=True)) == "bfloat16"
    assert held_in(ModelSource(str(llama.model), is_frozen=True)) == "float32"


def test_an_adapter_on_a_base_in_bfloat16_is_float32(
    llama: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    half = in_half(llama.model, tmp_path / "half")
    data = shutil.copytree(llama.data, tmp_path / "data")
    compute_reference(data, model=ModelSource(str(half), weights="bfloat16"), name="half")
    value: dict[str, Any] = {"model": str(half), "data": str(data), "reference": {"name": "half"}}
    config = config_of(**value, lora=LORA, steps=3)
    run = open_alone(config)
    dtypes = {w.requires_grad: w.dtype for w in run.policy.parameters()}

    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    train(config)


@pytest.mark.parametrize("options", [FOUR_BITS, {"load_in_8bit": True}], ids=["4 bits", "8 bits"])
def test_a_quantized_checkpoint_trains_an_adapter_and_nothing_else(
    options: dict[str, Any], llama: Arena, config_of: ConfigOf, tmp_path: Path
) -> None:
    model = quantized(llama.model, tmp_path / "model", **options)
    data = shutil.copytree(llama.data, tmp_path / "data")
    value: dict[str, Any] = {"model": str(model), "data": str(data)}
    with pytest.raises(UsageError, match="T105"):
        open_alone(config_of(**value))
    with pytest.raises(UsageError, match="T105"):
        compute_reference(data, model=ModelSource(str(model), quantize="nf4"), name="twice")

    compute_reference(data, model=str(model), name="stored")
    config = config_of(**value, lora=LORA, steps=2, reference={"name": "stored"})
    run = open_alone(config)
    assert all("lora_" in name for name, w in run.policy.named_parameters() if w.requires_grad)


def test_quantize_needs_an_adapter_and_bitsandbytes(
    config_of: ConfigOf, llama: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DpoError, match="quantize needs `lora`") as caught:
        config_of(quantize="nf4")
    assert caught.value.code == "T122"
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match="T129") as missing:
        open_alone(config_of(quantize="nf4", lora=LORA, model=str(llama.model)))
    assert "pip install" in missing.value.remedy
