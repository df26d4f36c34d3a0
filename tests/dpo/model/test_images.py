"""Models for images and text train on texts, and come back whole: class, keys and towers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from dpo.config import TrainConfig
from dpo.model.load import load_model, tower_layers
from dpo.model.weights import tensor_names
from dpo.reference_pass import compute_reference
from dpo.training.loop import train
from tests.dpo.conftest import build_pairs, open_alone
from tests.dpo.model.broken import WEIGHTS
from tests.dpo.tiny import tiny_tokenizer

TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.2,
}  # fmt: skip
PIXELS = {"hidden_size": 32, "intermediate_size": 32, "image_size": 32, "patch_size": 16}
DEEP = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
    "num_position_embeddings": 16,
}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4,
    "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mistral3": ({}, PIXELS | {"num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}),
    "qwen2_5_vl": (MROPE, DEEP | {"fullatt_block_indexes": [1]}),
    "qwen3_vl": (MROPE, DEEP | {"deepstack_visual_indexes": [0, 1]}),
    "gemma3": ({}, PIXELS | {"num_hidden_layers": 2, "num_attention_heads": 2}),
    "qwen3_5": (LINEAR, DEEP),
}


def save_images(kind: str, folder: Path) -> Path:
    tokenizer = tiny_tokenizer()
    text, vision = KINDS[kind]
    more = {"mm_tokens_per_image": 4} if kind == "gemma3" else {}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        text_config=TEXT | text | {"vocab_size": len(tokenizer)}, vision_config=vision, **more
    )
    tokenizer.save_pretrained(folder)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["whole", "adapter"])
def test_it_trains_on_texts_and_keeps_its_towers(
    kind: str, lora: dict[str, int] | None, tmp_path: Path, config_of: Callable[..., TrainConfig]
) -> None:
    model = save_images(kind, tmp_path / "model")
    data = build_pairs(tmp_path / "data", tokenizer=model, count=8, test_fraction=0.0)
    compute_reference(data, model=str(model))
    config = config_of(model=str(model), data=str(data), lora=lora, steps=1, eval_split=None)

    run = open_alone(config)
    towers = set(tower_layers(run.policy.model))
    assert towers
    trained = [name for name, w in run.policy.model.named_parameters() if w.requires_grad]
    assert trained
    assert not any(name.rpartition(".")[0] in towers or "vis" in name for name in trained)
    assert not any("lora_" in name and "vis" in name for name, _ in run.policy.named_parameters())
    train(config)
    out = config.out / "model"
    before, after = (load_file(folder / WEIGHTS) for folder in (model, out))
    assert before.keys() == after.keys() == set(tensor_names(out / WEIGHTS))
    for name in before:
        assert torch.equal(before[name], after[name]) or "vis" not in name
    assert not all(torch.equal(before[name], after[name]) for name in before)
    left, right = load_model(str(model)), load_model(str(out))
    assert type(left) is type(right)
    assert left.config.architectures == right.config.architectures
