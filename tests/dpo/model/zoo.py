"""Tiny random models of many architectures, every limit of length at 16, and pairs for them."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from dpo.data.packing import PromptWithCompletions
from dpo.data.pairs import Pairs
from dpo.data.shards import TableShard

VOCABULARY = 128
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS: dict[str, Any] = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
MLA: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
GPT2 = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def longrope(size: int = 4, **more: float) -> dict[str, Any]:
    """Return rotary settings whose frequencies change at 16 tokens."""
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0] * size,
        "long_factor": [2.0 + place for place in range(size)],
        **more,
    }


def config_of(model_type: str, **settings: Any) -> PretrainedConfig:
    """Return a config of three layers, with those of `SHAPE` and `EXPERTS` that its class has."""
    kind = CONFIG_MAPPING[model_type]
    known = {name: name for name in kind.__dataclass_fields__} | kind.attribute_map
    shape = {known[name]: size for name, size in (SHAPE | EXPERTS).items() if name in known}
    return kind(**shape | settings)


def model_of(config: PretrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """Return the config's model with large random weights, so that each token has an effect."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            torch.nn.init.normal_(weight, std=0.25)
        elif "norm" in name:
            torch.nn.init.normal_(weight, mean=1.0, std=0.2)
    return model


def rows_of(*lengths: tuple[int, ...], seed: int = 0) -> list[PromptWithCompletions]:
    """Return random rows; each item is the lengths of a prompt and its completions."""
    generator = np.random.default_rng(seed)

    def ids(length: int) -> Any:
        return generator.integers(3, VOCABULARY, length).astype(np.int32)

    return [
        PromptWithCompletions(ids(prompt), tuple(map(ids, sizes)), (None,) * len(sizes))
        for prompt, *sizes in lengths
    ]


def pairs_of(rows: list[PromptWithCompletions]) -> Pairs:
    """Return rows of one prompt and two completions as a split of a build."""
    names = [number.to_bytes(16, "big") for number in range(len(rows))]
    ids = pa.list_(pa.int32())
    empty = pa.nulls(len(rows), pa.list_(pa.bool_()))
    table = pa.table(
        {
            "prompt_ids": pa.array([row.prompt for row in rows], ids),
            "chosen_ids": pa.array([row.completions[0] for row in rows], ids),
            "rejected_ids": pa.array([row.completions[1] for row in rows], ids),
            "chosen_mask": empty,
            "rejected_mask": empty,
            "weight": pa.array([1.0] * len(rows), pa.float32()),
            "margin": pa.nulls(len(rows), pa.float32()),
            "pair_id": pa.array(names, pa.binary(16)),
            "group_id": pa.array(names, pa.binary(16)),
        }
    )
    return Pairs([TableShard(table)])
