"""Texts at and beyond a model's limits of length, in packs, against transformers' plain forward."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from dpo.data.packing import PromptWithCompletions, pack
from dpo.errors import UsageError
from dpo.model.attention import BACKENDS
from dpo.model.length_limits import lengths_named
from dpo.model.policy import Policy, PolicyOptions
from dpo.model.self_check import compared_tokens, make_policy, plain_logps, probes
from tests.dpo.model.zoo import MLA, config_of, longrope, model_of, pairs_of, rows_of

WINDOW = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
ALTERNATES = ["sliding_attention", "full_attention", "sliding_attention"]
FULL_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SHARED: dict[str, Callable[[], PretrainedConfig]] = {
    "phi3 longrope": lambda: config_of(
        "phi3",
        rope_parameters=longrope(partial_rotary_factor=1.0),
        original_max_position_embeddings=16,
        sliding_window=None,
    ),
    "phi3 longrope, window": lambda: config_of(
        "phi3",
        rope_parameters=longrope(partial_rotary_factor=1.0),
        original_max_position_embeddings=16,
        sliding_window=12,
    ),
    "llama longrope": lambda: config_of("llama", rope_parameters=longrope()),
    "llama dynamic": lambda: config_of(
        "llama", rope_parameters=DYNAMIC, max_position_embeddings=16
    ),
    "internlm3 dynamic": lambda: config_of(
        "internlm3", rope_parameters=DYNAMIC, max_position_embeddings=16, head_dim=8
    ),
    "minicpm3 longrope": lambda: config_of(
        "minicpm3", rope_parameters=longrope(), **MLA, head_dim=8
    ),
    "phimoe longrope, window": lambda: config_of(
        "phimoe", rope_parameters=longrope(long_mscale=1.3, short_mscale=1.0), sliding_window=16
    ),
    "gemma3 longrope in full layers": lambda: config_of(
        "gemma3_text",
        rope_parameters={"full_attention": longrope(), "sliding_attention": FULL_ROPE},
        layer_types=ALTERNATES,
        sliding_window=16,
        head_dim=8,
    ),
    "qwen2_moe window": lambda: config_of("qwen2_moe", **WINDOW),
    "qwen3 window": lambda: config_of("qwen3", **WINDOW, head_dim=8),
    "qwen3_moe window": lambda: config_of("qwen3_moe", **WINDOW, head_dim=8),
    "gemma2 windows": lambda: config_of(
        "gemma2", sliding_window=16, layer_types=ALTERNATES, head_dim=8, query_pre_attn_scalar=8
    ),
    "gemma3 windows": lambda: config_of(
        "gemma3_text", sliding_window=16, layer_types=ALTERNATES, head_dim=8
    ),
    "mistral window": lambda: config_of("mistral", sliding_window=16),
    "mixtral window": lambda: config_of("mixtral", sliding_window=16),
    "cohere2 windows": lambda: config_of("cohere2", sliding_window=16, layer_types=ALTERNATES),
    "starcoder2 window": lambda: config_of("starcoder2", sliding_window=16),
    "olmo3 windows": lambda: config_of("olmo3", sliding_window=16, layer_types=ALTERNATES),
    "exaone4 windows": lambda: config_of("exaone4", sliding_window=16, layer_types=ALTERNATES),
    "smollm3 without positions": lambda: config_of("smollm3", no_rope_layers=[1, 0, 1]),
    "ctrl, which scales embeddings in place": lambda: config_of(
        "ctrl", n_embd=32, n_layer=2, n_head=4, dff=64
    ),
    "gpt_oss sinks and windows": lambda: config_of(
        "gpt_oss",
        sliding_window=16,
        layer_types=ALTERNATES,
        head_dim=8,
        rope_parameters=FULL_ROPE,
    ),
    "granite_swa sinks": lambda: config_of("granite_swa", sliding_window=16),
}
UNSHARED: dict[str, Callable[[], PretrainedConfig]] = {
    "llama4 chunks": lambda: config_of(
        "llama4_text",
        attention_chunk_size=16,
        layer_types=["chunked_attention", "chunked_attention", "full_attention"],
        intermediate_size_mlp=64,
        head_dim=8,
    ),
    "minimax_m3 chosen blocks": lambda: config_of(
        "minimax_m3_vl_text",
        index_block_size=4,
        index_topk_blocks=2,
        index_n_heads=2,
        index_head_dim=8,
        head_dim=8,
        layer_types=["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
    ),
    "minimax linear attention": lambda: config_of("minimax", head_dim=8, block_size=16),
    "gpt_neo local attention": lambda: config_of(
        "gpt_neo",
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=16,
    ),
}
ROWS = rows_of((6, 5, 4), (3, 2, 30), (8, 8, 9), (30, 8, 2), (10, 6, 7), (4, 9, 1), (12, 4, 5))


def plain(model: PreTrainedModel, row: PromptWithCompletions) -> list[Tensor]:
    """Return the log-probs of each completion by a plain pass of the model."""
    found = []
    for completion in row.completions:
        ids = torch.from_numpy(np.concatenate([row.prompt, completion]).astype(np.int64))
        logits = model(input_ids=ids[None], use_cache=False).logits[0, len(row.prompt) - 1 : -1]
        found.append(logits.float().log_softmax(-1).gather(-1, ids[len(row.prompt) :, None])[:, 0])
    return found


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


def fresh_plain(
    model: PreTrainedModel, rows: list[PromptWithCompletions]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return log-probs of all rows and their gradients under `pull`, each text in a fresh model."""
    logps: list[Tensor] = []
    total: dict[str, Tensor] = {}
    pull = iter(torch.linspace(-1, 1, sum(len(c) for row in rows for c in row.completions)))
    for row in rows:
        for place in range(len(row.completions)):
            new = deepcopy(model)
            one = PromptWithCompletions(row.prompt, row.completions[place : place + 1], (None,))
            (found,) = plain(new, one)
            (found * torch.stack([next(pull) for _ in found])).sum().backward()
            logps.append(found.detach())
            for name, gradient in gradients(new).items():
                total[name] = total.get(name, 0) + gradient
    return torch.cat(logps), total


@pytest.mark.parametrize("name", [*SHARED, *UNSHARED])
def test_log_probs_and_gradients_at_every_limit_are_those_of_plain_forwards(name: str) -> None:
    """Compare shared or unshared packs with each text in a fresh model."""
    model = model_of((SHARED | UNSHARED)[name]())
    expected, grad_logps = fresh_plain(model, ROWS)

    policy, why = make_policy(model, pairs_of(ROWS))
    policy.add_gradients_in_place()
    found = policy(pack(ROWS)).logps_N
    (found * torch.linspace(-1, 1, len(found))).sum().backward()

    assert (found - expected).abs().max() <= 1e-4
    assert policy.shared == (name in SHARED) == (why is None)
    ours = gradients(model)
    assert ours.keys() == grad_logps.keys()
    gap = sum((ours[name] - slope).square().sum() for name, slope in grad_logps.items())
    assert (gap / sum(slope.square().sum() for slope in grad_logps.values())).sqrt() <= 1e-4


@pytest.mark.parametrize(
    "lengths", [((10, 4, 6),), ((10, 7, 9), (3, 20, 30))], ids=["up to", "beyond"]
)
def test_texts_on_one_side_of_a_rotary_limit_run_as_one_row(lengths: Any) -> None:
    rows = rows_of(*lengths)
    model = model_of(SHARED["phi3 longrope"]())
    policy = Policy(model)
    calls: list[int] = []
    model.model.register_forward_hook(lambda *_: calls.append(1))

    found = policy(pack(rows)).logps_N

    assert len(calls) == 1
    policy.share(shared=False)
    assert (found - fresh_plain(model, rows)[0]).abs().max() <= 1e-4


def test_texts_on_two_sides_run_as_two_rows_in_any_order() -> None:
    rows = rows_of((10, 4, 9), (2, 3, 30), (14, 2, 3, 1, 20))
    model = model_of(SHARED["phi3 longrope"]())
    policy = Policy(model)
    calls: list[int] = []
    model.model.register_forward_hook(lambda *_: calls.append(1))

    found = policy(pack(rows)).logps_N

    assert len(calls) == 2
    policy.share(shared=False)
    assert (found - fresh_plain(model, rows)[0]).abs().max() <= 1e-4


@pytest.fixture
def without_windows(monkeypatch: pytest.MonkeyPatch) -> PolicyOptions:
    """Return options with a backend that ignores the windows of layers."""

    def whole(*states: Any) -> Tensor:
        *others, options = states
        return BACKENDS["segments"](*others, options._replace(window=None))

    monkeypatch.setitem(BACKENDS, "whole", whole)  # type: ignore[arg-type]
    return PolicyOptions(backend="whole")


@pytest.mark.parametrize("name", ["mistral window", "qwen2_moe window", "gemma2 windows"])
def test_the_check_tests_a_window_that_only_the_longest_text_exceeds(
    name: str, without_windows: PolicyOptions
) -> None:
    """Check that one long text among many short ones detects an attention without windows."""
    short, long = pairs_of(rows_of(*[(3, 4, 5)] * 40)), pairs_of(ROWS[1:2])

    _, why = make_policy(model_of(SHARED[name]()), short, options=without_windows)
    assert why is None

    _, why = make_policy(model_of(SHARED[name]()), short, long, options=without_windows)
    assert why is not None
    assert why.startswith("off by")


def test_the_pairs_of_the_check_straddle_every_limit_that_a_config_names() -> None:
    config = config_of(
        "gemma3_text",
        sliding_window=16,
        rope_parameters={"full_attention": longrope(), "sliding_attention": FULL_ROPE},
        layer_types=ALTERNATES,
        max_position_embeddings=40,
    )
    rows = rows_of(*[(5, length, 1) for length in range(1, 60)])

    found = [
        len(row.prompt) + max(map(len, row.completions)) for row in probes(config, [pairs_of(rows)])
    ]

    assert {16, 40} <= set(lengths_named(config))
    assert set(found) == {6, 17, 35, 41, 64}


def test_the_check_takes_few_passes() -> None:
    """Expect two plain passes per pair, and one for each pack."""
    model = model_of(SHARED["mistral window"]())
    calls: list[int] = []
    model.model.register_forward_hook(lambda *_: calls.append(1))

    make_policy(model, pairs_of(rows_of(*[(5, n, 1) for n in range(1, 100)])))

    assert len(calls) == 2 * 4 + 2  # packs: the longest and the shortest; the others


def test_a_long_completion_is_compared_at_some_of_its_tokens(
    without_windows: PolicyOptions,
) -> None:
    """Check that the first and the last are among them, and that a fault is still found."""
    make, pairs = SHARED["mistral window"], pairs_of(ROWS)
    assert compared_tokens(11, 4).tolist() == [0, 3, 7, 10]
    assert len(plain_logps(model_of(make()), ROWS[:1], compared=2)) == 2 * 2
    assert make_policy(model_of(make()), pairs, compared=4)[1] is None
    options = without_windows
    assert make_policy(model_of(make()), pairs, options=options, compared=4)[1] is not None


def test_a_plain_pass_that_fails_is_an_error_with_a_code() -> None:
    model = model_of(config_of("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=20))

    with pytest.raises(UsageError, match=r"5 to 33 tokens fails \(IndexError.*\[T180\]") as caught:
        make_policy(model, pairs_of(rows_of((3, 2, 30))))

    assert caught.value.code == "T180"


def test_a_plain_pass_without_memory_says_so() -> None:
    model = model_of(SHARED["mistral window"]())

    def fail(*_args: Any, **_options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(fail)
    with pytest.raises(UsageError, match=r"over a text of 38 tokens.*T181"):
        make_policy(model, pairs_of(ROWS))
