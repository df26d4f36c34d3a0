"""Packs against transformers' own forward, on tiny models of five families."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from dpo.data.packing import PromptWithCompletions, pack
from dpo.model.policy import Policy
from dpo.model.self_check import plain_logps

VOCABULARY = 128
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen": Qwen3Config(**SHAPE, head_dim=8),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    ),
    "gemma": Gemma2Config(
        **SHAPE,
        head_dim=8,
        sliding_window=16,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=50.0,
        final_logit_softcapping=5.0,
    ),
    "mistral": MistralConfig(**SHAPE, sliding_window=12),
}


def model_of(family: str, **changes: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = deepcopy(FAMILIES[family])
    for name, value in changes.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def rows_of(*lengths: tuple[int, ...]) -> list[PromptWithCompletions]:
    generator = np.random.default_rng(0)

    def ids(length: int) -> np.ndarray:
        return generator.integers(0, VOCABULARY, length).astype(np.int32)

    return [
        PromptWithCompletions(ids(prompt), tuple(map(ids, sizes)), (None,) * len(sizes))
        for prompt, *sizes in lengths
    ]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "unshared"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packs_give_the_log_probs_and_gradients_of_plain_forwards(
    family: str,
    shared: bool,
) -> None:
    rows = rows_of((20, 7, 9), (3, 1, 14), (30, 12, 2), (5, 4, 4, 20, 1))
    model = model_of(family)
    plain = torch.cat([_plain_with_gradients(model, row) for row in rows])
    pull = torch.linspace(-1, 1, len(plain))
    (plain * pull).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    packed = Policy(model, shared=shared)(pack(rows)).logps_N
    (packed * pull).sum().backward()
    found = [parameter.grad for parameter in model.parameters()]

    assert (packed - plain).abs().max() <= 1e-4
    gap = sum((ours - theirs).square().sum() for ours, theirs in zip(found, expected, strict=True))
    size = sum(theirs.square().sum() for theirs in expected)
    assert (gap / size).sqrt() <= 1e-4


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_that_are_added_in_place_are_those_of_autograd(family: str, pads: bool) -> None:
    """Add gradients of two packs; a padding token's embedding is not trained."""
    rows = rows_of((20, 7, 9), (3, 1, 14), (30, 12, 2), (5, 4, 4, 20, 1))
    found = []
    for in_place in (False, True):
        model = model_of(family)
        model.get_input_embeddings().padding_idx = int(rows[0].prompt[0]) if pads else None
        policy = Policy(model)
        if in_place:
            policy.add_gradients_in_place()
            assert policy.head_adds
        for some in (rows[:2], rows[2:]):
            logps = policy(pack(some)).logps_N
            (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
        with torch.no_grad():
            policy(pack(rows))
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    expected, added = found
    for name, gradient in expected.items():
        torch.testing.assert_close(added[name], gradient, atol=1e-4, rtol=1e-4)


def _plain_with_gradients(model: PreTrainedModel, row: PromptWithCompletions) -> torch.Tensor:
    found = []
    for completion in row.completions:
        ids = torch.from_numpy(np.concatenate([row.prompt, completion]).astype(np.int64))
        logps = model(ids[None]).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
        found.append(logps.gather(-1, ids[len(row.prompt) :, None])[:, 0])
    return torch.cat(found)


def test_a_pair_does_not_see_its_neighbors() -> None:
    policy = Policy(model_of("llama"))
    rows = rows_of((20, 7, 9), (3, 1, 14))

    with torch.no_grad():
        alone = torch.cat([policy(pack([row])).logps_N for row in rows])
        together = policy(pack(rows)).logps_N

    assert (alone - together).abs().max() <= 1e-5


def test_plain_log_probs_are_those_of_the_models_logits() -> None:
    model = model_of("gpt2")
    rows = rows_of((6, 3, 4))

    torch.testing.assert_close(
        plain_logps(model, rows), _plain_with_gradients(model, rows[0]), rtol=0, atol=1e-6
    )


def test_saving_knows_nothing_of_packs() -> None:
    model = model_of("llama")
    policy = Policy(model)

    policy.share(shared=False)

    assert model.config._attn_implementation == policy.own_attention == "sdpa"
