"""Sampling by many architectures, against a greedy loop of plain passes without a cache."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PretrainedConfig, PreTrainedModel

from dpo.errors import UsageError
from dpo.sampling.cache_check import choose_reader
from dpo.sampling.decode import Prompt, Sampled, sample_batch, uniforms
from dpo.sampling.draw import Sampling
from dpo.sampling.readers import Cached, MakeReader, Recomputed
from tests.dpo.model.zoo import GPT2, MLA, config_of, longrope, model_of

STATE = {"state_size": 8, "time_step_rank": 4, "num_hidden_layers": 2}
ALTERNATES = ["sliding_attention", "full_attention", "sliding_attention"]
MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_expand": 2,
    "mamba_n_groups": 1,
}  # fmt: skip
KEEPS_STATE_ELSEWHERE: dict[str, Callable[[], PretrainedConfig]] = {
    "mamba": lambda: config_of("mamba", **STATE),
    "falcon_mamba": lambda: config_of("falcon_mamba", **STATE),
    "mamba2": lambda: config_of(
        "mamba2", num_heads=4, head_dim=16, state_size=8, n_groups=1, num_hidden_layers=2
    ),
    "rwkv": lambda: config_of("rwkv", attention_hidden_size=32, context_length=128),
    "minimax": lambda: config_of("minimax", head_dim=8, block_size=16),
    "granitemoehybrid without attention": lambda: config_of(
        "granitemoehybrid", layer_types=["mamba", "mamba", "mamba"], shared_intermediate_size=16,
        **MAMBA,
    ),
}  # fmt: skip
HAS_A_CACHE: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: config_of("llama"),
    "gpt2": lambda: config_of("gpt2", **GPT2),
    "mistral window": lambda: config_of("mistral", sliding_window=16),
    "gemma3 windows": lambda: config_of(
        "gemma3_text", sliding_window=16, layer_types=ALTERNATES, head_dim=8
    ),
    "gpt_oss sinks": lambda: config_of(
        "gpt_oss", sliding_window=16, layer_types=ALTERNATES, head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "llama4 chunks": lambda: config_of(
        "llama4_text", attention_chunk_size=16, head_dim=8, intermediate_size_mlp=64,
        layer_types=["chunked_attention", "chunked_attention", "full_attention"],
    ),
    "minicpm3": lambda: config_of("minicpm3", **MLA, head_dim=8),
    "qwen3_moe": lambda: config_of("qwen3_moe", head_dim=8),
    "bloom": lambda: config_of("bloom", n_layer=2, n_head=4),
    "lfm2, some of whose layers keep a state": lambda: config_of(
        "lfm2", layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False
    ),
    "falcon_h1, whose layers keep a state and keys": lambda: config_of(
        "falcon_h1", mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8,
        mamba_n_groups=1, mamba_chunk_size=8, head_dim=8,
    ),
    "llama longrope": lambda: config_of("llama", rope_parameters=longrope()),
    "llama dynamic": lambda: config_of(
        "llama", max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    ),
}  # fmt: skip
ALL = KEEPS_STATE_ELSEWHERE | HAS_A_CACHE
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
TEXTS = [
    np.random.default_rng(length).integers(3, 128, length).tolist() for length in (3, 6, 13, 21)
]


def greedy(model: PreTrainedModel, text: list[int]) -> list[int]:
    """Return tokens of a loop that runs the whole text each time, as without a cache."""
    ids = list(text)
    for _ in range(GREEDY.max_new_tokens):
        with torch.no_grad():
            logits = model_again(model)(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(text) :]


def model_again(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model, or a fresh copy if its frequencies depend on earlier texts."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "dynamic":
        return model
    fresh = type(model)(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    return fresh


def sampled(
    model: PreTrainedModel, reader: MakeReader, texts: list[list[int]] = TEXTS
) -> list[list[Sampled]]:
    prompts = [Prompt(text, uniforms(0, 0, 2, 8)) for text in texts]
    return sample_batch(model, prompts, GREEDY, frozenset(), reader)


@pytest.mark.parametrize("name", ALL)
def test_completions_are_those_of_a_loop_without_a_cache(name: str) -> None:
    """Use prompts of several lengths in one batch, and texts beyond every limit of their model."""
    model = model_of(ALL[name]())

    reader, why = choose_reader(model, TEXTS, GREEDY)
    found = sampled(model, reader)

    assert (why is None) == (reader is Cached)
    for text, completions in zip(TEXTS, found, strict=True):
        expected = greedy(model, text)
        assert [completion.ids for completion in completions] == [expected, expected]


@pytest.mark.parametrize("name", HAS_A_CACHE)
def test_a_common_beginning_is_run_once_and_changes_nothing(name: str) -> None:
    model = model_of(HAS_A_CACHE[name]())
    texts = [TEXTS[2][:9] + text for text in TEXTS[:3]]

    reader, _ = choose_reader(model, texts, GREEDY)
    found = sampled(model, reader, texts)

    for text, completions in zip(texts, found, strict=True):
        assert [completion.ids for completion in completions] == [greedy(model, text)] * 2


@pytest.mark.parametrize("name", KEEPS_STATE_ELSEWHERE)
def test_a_lost_state_is_detected(name: str) -> None:
    reader, why = choose_reader(model_of(ALL[name]()), TEXTS, GREEDY)

    assert reader is Recomputed
    assert why is not None
    assert "plain passes" in why or "it fails" in why


@pytest.mark.parametrize(
    "name", [name for name in HAS_A_CACHE if name not in ("llama longrope", "llama dynamic")]
)
def test_a_correct_cache_is_used(name: str) -> None:
    assert choose_reader(model_of(ALL[name]()), TEXTS, GREEDY) == (Cached, None)


def test_short_texts_of_a_model_with_longrope_keep_its_cache() -> None:
    model = model_of(ALL["llama longrope"]())

    assert choose_reader(model, [TEXTS[0], TEXTS[1]], GREEDY)[0] is Cached
    assert choose_reader(model, TEXTS, GREEDY)[1] == "its rotary frequencies change at 16 tokens"


@pytest.mark.parametrize("how", [Sampling(1.0, 1.0, 8), Sampling(0.7, 0.9, 8)])
def test_both_readers_draw_the_same(how: Sampling) -> None:
    model = model_of(ALL["llama"]()).double()
    prompts = [Prompt(text, uniforms(0, row, 3, 8)) for row, text in enumerate(TEXTS)]
    stop = frozenset(range(40))

    first = sample_batch(model, prompts, how, stop, Cached)
    second = sample_batch(model, prompts, how, stop, Recomputed)

    for one, other in zip(
        (c for row in first for c in row), (c for r in second for c in r), strict=True
    ):
        assert (one.ids, one.ended) == (other.ids, other.ended)
        assert one.logp == pytest.approx(other.logp, abs=1e-6)


def test_a_model_whose_plain_pass_fails_is_refused() -> None:
    model = model_of(config_of("gpt2", **GPT2 | {"n_positions": 2}))

    with pytest.raises(UsageError, match=r"a plain pass over 3 tokens fails \(IndexError.*T182"):
        choose_reader(model, TEXTS, GREEDY)
