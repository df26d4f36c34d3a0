"""Broken checkpoints by kind of fault, ten or more each; and correct ones."""

import torch
from safetensors.torch import load_file, save_file

from tests.dpo.model.broken import (
    ADAPTER,
    HOSTILE,
    INDEX,
    INF,
    NAN,
    WEIGHTS,
    Break,
    as_pickle,
    both_forms,
    config,
    cut,
    extra,
    gone,
    holding,
    replaced,
    sharded,
    spoiled,
    then,
    weights,
    without,
)  # fmt: skip

LLAMA: dict[str, dict[str, tuple[Break, str]]] = {
    "missing": {
        "the last norm": (without("model.norm.weight"), "T193"),
        "a norm in a layer": (without("layers.1.input_layernorm.weight"), "T193"),
        "the embedding": (without("embed_tokens.weight"), "T193"),
        "a head that is not tied": (without("lm_head.weight"), "T193"),
        "a projection": (without("layers.0.self_attn.k_proj.weight"), "T193"),
        "a layer": (weights(lambda t: {k: v for k, v in t.items() if ".1." not in k}), "T193"),
        "a config with more layers": (config(num_hidden_layers=3), "T193"),
        "a config with biases": (config(attention_bias=True), "T193"),
        "all": (weights(lambda t: {"x": next(iter(t.values()))}), "T193"),
        "another name": (
            weights(lambda t: {k.replace("norm.weight", "norm.w"): v for k, v in t.items()}),
            "T193",
        ),
        "a shard's tensor, by its index too": (
            then(without("model.norm.weight"), sharded()),
            "T193",
        ),
    },
    "left over": {
        "a tensor": (extra(model__extra__weight=torch.ones(3)), "T194"),
        "a layer": (
            weights(
                lambda t: (
                    t | {k.replace(".1.", ".2."): v.clone() for k, v in t.items() if ".1." in k}
                )
            ),
            "T194",
        ),
        "a config with fewer layers": (config(num_hidden_layers=1), "T194"),
        "no layers at all": (config(num_hidden_layers=-1), "T194"),
        "biases": (extra(model__layers__0__self_attn__q_proj__bias=torch.ones(32)), "T194"),
        "an adapter's matrices": (
            extra(model__layers__0__self_attn__q_proj__lora_A__weight=torch.ones(4, 32)),
            "T194",
        ),
        "a value head": (extra(v_head__summary__weight=torch.ones(1, 32)), "T194"),
        "a classifier's head": (extra(score__weight=torch.ones(2, 32)), "T194"),
        "scales of a quantization": (
            extra(model__layers__0__self_attn__q_proj__weight_scale=torch.ones(1)),
            "T194",
        ),
        "a tensor of another family": (extra(transformer__h__0__mlp=torch.ones(3)), "T194"),
    },
    "other shapes": {
        "transposed": (replaced("mlp.up_proj.weight", lambda t: t.T.contiguous()), "T195"),
        "a shorter vocabulary": (replaced("embed_tokens.weight", lambda t: t[:-1].clone()), "T195"),
        "a wider norm": (replaced("model.norm.weight", lambda _: torch.ones(33)), "T195"),
        "no dimension": (replaced("model.norm.weight", lambda t: t[0].clone()), "T195"),
        "one dimension more": (replaced("model.norm.weight", lambda t: t[None].clone()), "T195"),
        "no row": (replaced("lm_head.weight", lambda t: t[:0].clone()), "T195"),
        "a config with another width": (config(intermediate_size=65), "T195"),
        "a config with other heads": (config(num_key_value_heads=4), "T195"),
        "a config with a vast vocabulary": (config(vocab_size=10**12), "T195"),
        "integers": (replaced("model.norm.weight", lambda t: t.to(torch.int32)), "T195"),
        "8 bits without scales": (
            replaced("down_proj.weight", lambda t: t.to(torch.float8_e4m3fn)),
            "T195",
        ),
    },
    "cut or damaged": {
        "by a byte": (cut(lambda data: data[:-1]), "T191"),
        "by half": (cut(lambda data: data[: len(data) // 2]), "T191"),
        "in its header": (cut(lambda data: data[:30]), "T191"),
        "to nothing": (cut(lambda _: b""), "T191"),
        "longer": (cut(lambda data: data + b"x"), "T191"),
        "a page of HTML": (cut(lambda _: b"<!DOCTYPE html>" * 50), "T191"),
        "an LFS pointer": (cut(lambda _: b"version https://git-lfs.github.com/spec/v1"), "T191"),
        "a header that is not JSON": (cut(lambda data: data[:8] + b"!" + data[9:]), "T191"),
        "a header's length of 2 GiB": (cut(lambda data: b"\0\0\0\x80" + data[4:]), "T191"),
        "a directory of its name": (
            then(gone(WEIGHTS), lambda folder: (folder / WEIGHTS).mkdir()),
            "T191",
        ),
        "absent": (gone(WEIGHTS), "T191"),
    },
    "an index of shards": {
        "names an absent shard": (
            then(sharded(), gone("model-00002-of-00002.safetensors")),
            "T191",
        ),
        "names a file above": (sharded(lambda m: m | {"a": "../model.safetensors"}), "T191"),
        "names an absolute path": (sharded(lambda m: m | {"a": "/etc/passwd"}), "T191"),
        "names nothing": (sharded(lambda m: m | {"a": ""}), "T191"),
        "has numbers": (sharded(lambda m: m | {"a": 5}), "T191"),
        "is a list": (sharded(list), "T191"),
        "lists a tensor that no file has": (
            sharded(lambda m: m | {"model.more.weight": next(iter(m.values()))}),
            "T191",
        ),
        "is cut": (then(sharded(), holding(INDEX, b'{"weight_map": {')), "T191"),
        "is empty": (then(sharded(), holding(INDEX, b"{}")), "T191"),
        "names a cut shard": (
            then(sharded(), holding("model-00001-of-00002.safetensors", b"\x08\0\0\0\0\0\0\0{}")),
            "T191",
        ),
        "is next to a whole file": (
            both_forms,
            "T197",
        ),
        "has a tensor in two shards": (
            then(
                sharded(),
                lambda folder: save_file(
                    load_file(folder / "model-00001-of-00002.safetensors")
                    | load_file(folder / "model-00002-of-00002.safetensors"),
                    folder / "model-00002-of-00002.safetensors",
                    metadata={"format": "pt"},
                ),
            ),
            "T197",
        ),
    },
    "two readings": {
        "a body without its prefix": (extra(norm__weight=torch.ones(32)), "T197"),
        "a prefix twice": (extra(model__model__norm__weight=torch.ones(32)), "T197"),
        "a prefix thrice": (extra(model__model__model__norm__weight=torch.ones(32)), "T197"),
        "a head in the body": (extra(model__lm_head__weight=torch.ones(300, 32)), "T197"),
        "a head of another shape in the body": (
            extra(model__lm_head__weight=torch.ones(3, 3)),
            "T197",
        ),
        "a layer's tensor": (extra(layers__0__input_layernorm__weight=torch.ones(32)), "T197"),
        "a projection": (
            extra(layers__0__self_attn__q_proj__weight=torch.ones(32, 32)),
            "T197",
        ),
        "an embedding": (extra(embed_tokens__weight=torch.ones(300, 32)), "T197"),
        "the whole body": (
            weights(lambda t: t | {f"model.{k}": v.clone() for k, v in t.items()}),
            "T197",
        ),
        "in shards": (then(extra(norm__weight=torch.ones(32)), sharded()), "T197"),
    },
    "pickles": {
        "a right one": (as_pickle("pytorch_model.bin"), "T192"),
        "a hostile one": (as_pickle("pytorch_model.bin", HOSTILE), "T192"),
        "an empty one": (as_pickle("pytorch_model.bin", b""), "T192"),
        "its index": (as_pickle("pytorch_model.bin.index.json", b"{}"), "T192"),
        "a shard": (as_pickle("pytorch_model-00001-of-00002.bin", HOSTILE), "T192"),
        ".pt": (as_pickle("model.pt", HOSTILE), "T192"),
        ".pth": (as_pickle("consolidated.00.pth", HOSTILE), "T192"),
        ".ckpt": (as_pickle("last.ckpt", HOSTILE), "T192"),
        "cut": (as_pickle("pytorch_model.bin", b"PK\x03\x04"), "T192"),
        "named as safetensors": (as_pickle(WEIGHTS, HOSTILE), "T191"),
    },
    "adapters": {
        "next to a model": (holding("adapter_config.json", ADAPTER), "T190"),
        "only its weights, next to a model": (holding("adapter_model.safetensors", b"x"), "T190"),
        "its pickle next to a model": (holding("adapter_model.bin", b"x"), "T190"),
        "without a model": (
            then(gone("config.json", WEIGHTS), holding("adapter_config.json", ADAPTER)),
            "T190",
        ),
        "only with a config": (
            then(gone(WEIGHTS), holding("adapter_config.json", ADAPTER)),
            "T190",
        ),
        "only with weights": (
            then(gone("config.json"), holding("adapter_config.json", ADAPTER)),
            "T190",
        ),
        "of no base": (
            then(gone("config.json", WEIGHTS), holding("adapter_config.json", b"{}")),
            "T190",
        ),
        "with a broken config": (holding("adapter_config.json", b"{"), "T190"),
        "with a list for a config": (
            then(gone("config.json", WEIGHTS), holding("adapter_config.json", b"[]")),
            "T190",
        ),
        "with an empty config": (holding("adapter_config.json", b""), "T190"),
    },
    "config.json": {
        "a text for a number": (config(hidden_size="32"), "T102"),
        "a fraction of layers": (config(num_hidden_layers=2.0), "T102"),
        "null": (config(rms_norm_eps=None), "T102"),
        "a list": (config(vocab_size=[300]), "T102"),
        "no heads": (config(num_attention_heads=0), "T102"),
        "three heads": (config(num_attention_heads=3), "T102"),
        "an unknown activation": (config(hidden_act="nope"), "T103"),
        "an unknown rotation": (config(rope_scaling={"type": "nope"}), "T103"),
        "a base of rotations in words": (
            config(rope_parameters={"rope_type": "default", "rope_theta": "big"}),
            "T103",
        ),
        "a rotation without its factor": (config(rope_parameters={"rope_type": "dynamic"}), "T102"),
        "less than no token": (config(vocab_size=-5), "T103"),
        "an unknown type": (config(model_type="nope"), "T102"),
        "a number for a type": (config(model_type=5), "T102"),
        "a yes in words": (config(tie_word_embeddings="no"), "T102"),
        "a quantization of no method": (config(quantization_config={"a": 1}), "T103"),
        "a file above": (config(transformers_weights="../model.safetensors"), "T103"),
        "is a list of its own": (holding("config.json", b"[]"), "T102"),
        "is a number": (holding("config.json", b"5"), "T102"),
        "is cut": (holding("config.json", b'{"a":'), "T102"),
        "is UTF-16": (holding("config.json", b"\xff\xfe{\0}\0"), "T102"),
        "is deep": (holding("config.json", b"[" * 100_000), "T102"),
        "is absent": (gone("config.json"), "T102"),
        "ends of answers in words": (
            holding("generation_config.json", b'{"eos_token_id": "x"}'),
            "T212",
        ),
        "a cut generation_config.json": (holding("generation_config.json", b"{"), "T212"),
    },
    "not finite": {
        "the last norm": (spoiled("model.norm.weight", NAN), "T196"),
        "a norm in a layer": (spoiled("layers.1.input_layernorm.weight", NAN), "T196"),
        "the embedding": (spoiled("embed_tokens.weight", NAN), "T196"),
        "the head": (spoiled("lm_head.weight", NAN), "T196"),
        "a projection": (spoiled("layers.0.self_attn.q_proj.weight", NAN), "T196"),
        "infinite": (spoiled("layers.0.mlp.up_proj.weight", INF), "T196"),
        "minus infinite": (spoiled("layers.0.mlp.up_proj.weight", -INF), "T196"),
        "in bfloat16": (replaced("norm.weight", lambda t: (t * NAN).bfloat16()), "T196"),
        "in float16, too large for it": (
            replaced("up_proj.weight", lambda t: (t * 1e9).half()),
            "T196",
        ),
        "in float64, too large for float32": (
            replaced("up_proj.weight", lambda t: t.double() * 1e300),
            "T196",
        ),
        "in a shard": (then(spoiled("model.norm.weight", NAN), sharded()), "T196"),
    },
}
"""By kind: the break of a checkpoint, and its code."""

RIGHT: dict[str, Break] = {
    "as saved": lambda _: None,
    "in two shards": sharded(),
    "in bfloat16": weights(lambda t: {k: v.bfloat16() for k, v in t.items()}),
    "in dtypes of many kinds": replaced("norm.weight", lambda t: t.double()),
    "with the buffer of rotations": extra(
        model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4)
    ),
    "without metadata": lambda folder: save_file(load_file(folder / WEIGHTS), folder / WEIGHTS),
    "with a pickle too": holding("pytorch_model.bin", HOSTILE),
    "with a pickle of settings": holding("training_args.bin", HOSTILE),
    "with an optimizer": holding("optimizer.pt", HOSTILE),
    "of a body without its prefix": weights(
        lambda t: {k.removeprefix("model."): v for k, v in t.items()}
    ),
    "with other files": holding("README.md", b"x"),
}
GPT2_RIGHT: dict[str, Break] = {
    "a tied head that is not stored": lambda _: None,
    "a tied head that is": weights(
        lambda t: t | {"lm_head.weight": t["transformer.wte.weight"].clone()}
    ),
    "masks of old checkpoints": extra(
        transformer__h__0__attn__bias=torch.ones(1, 1, 256, 256, dtype=torch.bool),
        transformer__h__0__attn__masked_bias=torch.tensor(-1e4),
    ),
    "a body without its prefix": weights(
        lambda t: {k.removeprefix("transformer."): v for k, v in t.items()}
    ),
}
