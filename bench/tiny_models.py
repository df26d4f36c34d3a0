"""Tiny random models of every causal LM type of transformers, every limit of length at 16.

A type's own default config is shrunk by the names of its fields: sizes become small, windows,
chunks and top-k become 16, lists per layer become four entries with each of their values, soft caps
and multipliers are set so that leaving one out changes the numbers.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES: tuple[str, ...] = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
VOCABULARY = 128
TEXT_IDS = range(3, 100)
"""Ids of texts: neither padding nor the ends of texts, nor those of images (from 100)."""
LIMIT = 16
LAYERS = 4

_SIZES: tuple[tuple[int, str], ...] = (
    (VOCABULARY, r"(decoder_|audio_|unpadded_)?vocab_size|vocab_size_per_layer_input"
    r"|ngram_vocab_size_base|encoder_hash_byte_group_vocab|shape_vocab_size"
    r"|pronunciation_vocab_size|max_(target_)?position_embeddings|n_positions|n_ctx"
    r"|max_seq_len|model_max_length|context_length"),
    (64, r"intermediate_size|(encoder_|decoder_)?ffn_dim|n_inner|dff|dim_ff|ffn_hidden_size"
    r"|dense_intermediate_size|intermediate_size_mlp|feed_forward_size|mamba_d_ssm"
    r"|prefix_dense_intermediate_size"),
    (32, r"hidden_size(_global)?|adapter_(in|out)_dim|d_model|n_embd|emb_dim|embedding_dim"
    r"|input_embedding_size|embedding_size|output_embedding_size|attention_hidden_size"
    r"|cross_attention_hidden_size|word_embed_proj_dim|lru_width|backbone_hidden_size"
    r"|shared_intermediate_size|kv_channels_total|d_inner"),
    (LIMIT, r"sliding_window(_size)?|attention_chunk_size|chunk_size|mamba_chunk_size|window_size"
    r"|index_topk|attention_window_size|local_attention(_window_len)?|block_size"
    r"|index_block_size|keep_window_size|original_max_position_embeddings"
    r"|local_attn_chunk_length|lsh_attn_chunk_length|(q|kv|o)_lora_rank"
    r"|(shared_)?(expert_)?(moe_)?(shared_)?(experts?_)?(ffn_hidden|intermediate)_size"
    r"|rel_extent|relative_max_distance|log_scaling_n_floor|floor_scale"
    r"|centroid_intermediate_top_k|laurel_rank|hidden_size_per_layer_input|mamba_d_head"
    r"|mamba_headdim|mamba_head_dim|router_hidden_size|ple_embed_dim|adapter_rank"
    r"|moe_latent_size|prompt_mid_dim|gated_norm_rank"),
    (8, r"(swa_|index_|indexer_|mamba_d_|linear_(key_|value_)?|attention_)?head_dim"
    r"|qk_(rope|nope)_head_dim|v_head_dim|dim_head|kv_channels"
    r"|(mamba_d_|ssm_)?state(_size)?|attention_head_(size|dim)|d_head|max_source_positions"
    r"|indexer_budget|num_buckets|d_rel|mamba_dt_rank|time_step_rank|rotary_dim"),
    (LAYERS, r"num_(hidden_|decoder_|encoder_)?layers|n_layers?|(encoder|decoder)_layers"
    r"|num_blocks"),
    (4, r"(num_|n_)?(attention_|encoder_attention_|decoder_attention_)?(heads?)"
    r"|num_(encoder|decoder)_attention_heads|swa_num_attention_heads"
    r"|(num_|n_)(local_|routed_)?experts|moe_num_experts|mamba_n(um)?_heads"
    r"|(encoder|decoder)_attention_heads|num_centroids|index_n_heads|indexer_n_heads"
    r"|linear_num_(value_)?heads|o_groups"),
    (2, r"(swa_)?num_(key_value|kv)_heads|linear_num_key_heads|num_experts_per_tok(en)?"
    r"|moe_topk|moe_k|top_k_experts|num_query_groups|n_groups|mamba_n_?groups"
    r"|max_window_layers|num_dense_layers|index_topk_blocks|n_group|num_expert_group"
    r"|sliding_window_pattern|_sliding_window_pattern|altup_num_inputs"),
    (1, r"topk_group|n_shared_experts|num_shared_experts|moe_num_shared_experts"
    r"|first_k_dense_replace|decoder_sparse_step|moe_layer_start_index|index_local_blocks"
    r"|num_kv_shared_layers"),
)  # fmt: skip
"""Sizes, and the names of the fields that get them."""
_SETTINGS: dict[str, Any] = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
    "use_sliding_window": True,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 5.0,
    "logits_soft_cap": 5.0,
    "output_logit_soft_cap": 5.0,
    "logit_scale": 0.5,
    "logits_scaling": 2.0,
    "lm_head_multiplier": 0.5,
    "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5,
    "rescale_every": 2,
}
_MISSING = {
    "sliding_window": LIMIT, "head_dim": 8, "n_routed_experts": 4, "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2, "moe_intermediate_size": 16, "top_k_experts": 2,
    "n_shared_experts": 1,
    "indexer_budget": 16, "indexer_compress_ratio": 4, "indexer_head_dim": 8, "indexer_kv_heads": 1,
    "indexer_n_heads": 4,
}  # fmt: skip
"""Fields without a default value."""
_RATE = re.compile(r"dropout|pdrop|layerdrop|jitter_noise")
RATE = 0.2
_SPECIAL = re.compile(r"_(token_id|token_index|index)$")


def config_of(model_type: str, **settings: Any) -> PretrainedConfig:
    """Return the type's config, shrunk; `settings` override its fields."""
    kind = CONFIG_MAPPING[model_type]
    shrunk = _merged(_shrunk(kind()), _BY_TYPE.get(model_type, {}))
    return kind(**_merged(shrunk, settings))


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Return both, nested dictionaries merged too."""
    found = dict(first)
    for name, value in second.items():
        nested = isinstance(value, dict) and isinstance(found.get(name), dict)
        whole = name in ("rope_parameters", "per_layer_config", "compress_rates")
        found[name] = _merged(found[name], value) if nested and not whole else value
    return found


def _shrunk(config: PretrainedConfig) -> dict[str, Any]:
    """Return the fields of a config that differ from its defaults after shrinking."""
    native = set(type(config).__dataclass_fields__) - set(config.attribute_map)
    fields = dict(_fields(config, native))
    latent = {"num_key_value_heads": 4, "qk_head_dim": 16} if "kv_lora_rank" in fields else {}
    return fields | {name: value for name, value in latent.items() if name in native}


def _fields(config: PretrainedConfig, names: set[str]) -> Iterator[tuple[str, Any]]:
    values = config.to_dict()
    layers = values.get(config.attribute_map.get("num_hidden_layers", "num_hidden_layers"))
    for name in sorted(names - {"transformers_version", "architectures", "id2label", "label2id"}):
        value = values.get(name)
        if name in getattr(config, "sub_configs", {}):
            inner = getattr(config, name)
            if inner is not None:
                yield name, _shrunk(inner) | {"model_type": inner.model_type}
        elif isinstance(value, list | tuple) and layers is not None and len(value) == layers:
            yield name, _per_layer(list(value), window="sliding_window" in names)
        elif name == "rope_parameters" and isinstance(value, dict):
            yield name, _rope(value)
        elif (found := _value(name, value)) is not None:
            yield name, found


def _per_layer(values: list[Any], *, window: bool) -> list[Any]:
    """Return four entries with each of the values, the last one being the last value."""
    distinct = list(dict.fromkeys(map(_small, values)))
    if distinct == ["full_attention"] and window:
        distinct = ["sliding_attention", "full_attention"]
    return [distinct[place % len(distinct)] for place in range(LAYERS - 1)] + [_small(values[-1])]


def _small(value: Any) -> Any:
    return 64 if type(value) is int and value > 64 else value


def _rope(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _rope(value)
        if isinstance(value, dict)
        else (LIMIT if name == "original_max_position_embeddings" else value)
        for name, value in parameters.items()
    }


def _value(name: str, value: Any) -> Any:
    """Return a small value for a field of this name; None to leave it."""
    if name in _SETTINGS:
        return _SETTINGS[name]
    if isinstance(value, float) and _RATE.search(name):
        return RATE
    if value is None or isinstance(value, bool) or not isinstance(value, int):
        return _MISSING.get(name) if value is None else None
    if _SPECIAL.search(name) and value >= 100:
        return 100 + hash_of(name)
    return next((size for size, names in _SIZES if re.fullmatch(names, name)), None)


def hash_of(name: str) -> int:
    """Return a number below 28 that is always the same for a name."""
    return sum(map(ord, name)) % 28


_DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_BY_TYPE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "sliding_attention": _DEFAULT_ROPE,
            "full_attention": _DEFAULT_ROPE,
        },
    },
    "dbrx": {
        "attn_config": {"clip_qkv": 8.0, "rope_theta": 10000.0, "kv_n_heads": 2},
        "ffn_config": {"moe_num_experts": 4, "moe_top_k": 2, "ffn_hidden_size": 64},
    },
    "deepseek_v4": {
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 16}
    },
    "diffllama": {"attention_dropout": 0.0},
    "dots3_note": {"audio_config": {"adapter_input_size": 32}},
    "dots3_note_text": {
        "per_layer_config": {
            "1": {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
        }
    },
    "gemma4_text": {
        "enable_moe_block": True,
        "per_layer_config": {"1": {"head_dim": 16}, "3": {"head_dim": 16}},
    },
    "gpt_neo": {
        "attention_types": [[["global", "local"], 2]],
        "attention_layers": ["global", "local"] * 2,
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"] * 2,
        "index_block_size": 4,
    },
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 16],
        "attn_layers": ["local", "lsh"] * 2,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zaya": {"num_experts_per_tok": 1},
}


def model_of(config: PretrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """Return the config's model with large random weights, so that each token has an effect."""
    torch.manual_seed(seed)
    made: Any = AutoModelForCausalLM
    model: PreTrainedModel = made.from_config(config).float().eval()
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 or name.endswith("sinks"):
            torch.nn.init.normal_(weight, std=0.25)
        elif "norm" in name:
            torch.nn.init.normal_(weight, mean=1.0, std=0.2)
    return model


class Case(NamedTuple):
    """A type with settings that differ from those of `config_of`."""

    model_type: str
    variant: str
    settings: dict[str, Any]


def cases_of(model_type: str) -> list[Case]:
    """Return a type's cases: as it is, with the other tying of embeddings, other rotary kinds."""
    try:
        config = config_of(model_type)
        tied = getattr(config.get_text_config(), "tie_word_embeddings", False)
    except (ValueError, AttributeError, StrictDataclassError):  # check_case reports it
        return [Case(model_type, "", {})]
    other: dict[str, Any] = {"tie_word_embeddings": not tied}
    if "text_config" in config.sub_configs:
        other["text_config"] = dict(other)
    cases = [
        Case(model_type, "tied" if tied else "untied", {}),
        Case(model_type, "untied" if tied else "tied", other),
    ]
    if model_type in _ROTARY:
        kinds = _ROTARY[model_type]
        cases += [Case(model_type, kind, _rotary(config, kind)) for kind in kinds]
    return cases + [Case(model_type, *variant) for variant in _VARIANTS.get(model_type, ())]


_KINDS = ("longrope", "dynamic", "yarn", "llama3", "linear")
_ROTARY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("llama", "minicpm3", "internlm3", "qwen2", "qwen3_moe", "mistral", "deepseek_v3"), _KINDS
    ),
    **dict.fromkeys(("gpt_oss", "granite", "olmo2"), _KINDS),
    "phi3": ("longrope",),
    "phimoe": ("longrope",),
}
"""Types that are run with these kinds of rotary embeddings."""
_VARIANTS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "bert": (("not a decoder", {"is_decoder": False}),),
    "gpt_neox": (("sequential", {"use_parallel_residual": False}),),
    "falcon": (("alibi", {"alibi": True}),),
    "phi3": (("no window", {"sliding_window": None}),),
    "bamba": (("attention first", {"attn_layer_indices": [0, 2]}),),
    "granitemoehybrid": (("no attention", {"layer_types": ["mamba"] * LAYERS}),),
}
"""Further cases of a type."""


def _rotary(config: PretrainedConfig, kind: str) -> dict[str, Any]:
    """Return rotary settings of a kind, whose frequencies change at 16 tokens."""
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    rotated = getattr(text, "qk_rope_head_dim", None) or size
    theta: dict[str, Any] = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if config.model_type == "phimoe":
        theta |= {"short_mscale": 1.0, "long_mscale": 1.5}
    more: dict[str, dict[str, Any]] = {
        "longrope": {
            "short_factor": [1.0] * (rotated // 2),
            "long_factor": [2.0 + place for place in range(rotated // 2)],
            "original_max_position_embeddings": LIMIT,
        },
        "yarn": {"original_max_position_embeddings": LIMIT, "beta_fast": 32.0, "beta_slow": 1.0},
        "llama3": {
            "original_max_position_embeddings": LIMIT,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    }
    reach = {"max_position_embeddings": LIMIT} if kind == "dynamic" else {}
    return {"rope_parameters": theta | more.get(kind, {})} | reach
