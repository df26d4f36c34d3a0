"""Training without `dropout` is deterministic, for all names that models give their rates."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from dpo.data.packing import pack
from dpo.model.load import checkpoint_layers
from dpo.model.policy import Policy, PolicyOptions
from tests.dpo.model.zoo import GPT2, config_of, model_of, rows_of

NOISY: dict[str, Callable[[], PretrainedConfig]] = {
    "seed_oss": lambda: config_of(
        "seed_oss", attention_dropout=0.5, residual_dropout=0.5, head_dim=8
    ),
    "gpt_bigcode": lambda: config_of(
        "gpt_bigcode", **GPT2, attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5
    ),
    "phimoe": lambda: config_of(
        "phimoe", input_jitter_noise=0.5, router_jitter_noise=0.5, attention_dropout=0.5,
        hidden_dropout=0.5,
    ),
    "mixtral": lambda: config_of("mixtral", router_jitter_noise=0.5, attention_dropout=0.5),
    "starcoder2": lambda: config_of(
        "starcoder2", residual_dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5
    ),
    "falcon": lambda: config_of("falcon", hidden_dropout=0.5, attention_dropout=0.5),
    "persimmon": lambda: config_of("persimmon", hidden_dropout=0.5, attention_dropout=0.5),
    "opt": lambda: config_of(
        "opt", ffn_dim=64, word_embed_proj_dim=32, dropout=0.5, attention_dropout=0.5,
        layerdrop=0.5,
    ),
    "biogpt": lambda: config_of(
        "biogpt", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5,
        activation_dropout=0.5, layerdrop=0.5,
    ),
    "xglm": lambda: config_of(
        "xglm", d_model=32, ffn_dim=64, num_layers=3, attention_heads=4, dropout=0.5,
        attention_dropout=0.5, activation_dropout=0.5, layerdrop=0.5,
    ),
    "gpt2": lambda: config_of("gpt2", **GPT2, attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5),
    "gpt_neox": lambda: config_of("gpt_neox", attention_dropout=0.5, hidden_dropout=0.5),
    "stablelm": lambda: config_of("stablelm", attention_dropout=0.5, hidden_dropout=0.5),
}  # fmt: skip
ROWS = rows_of((6, 5, 4), (3, 2, 9))


def training(model: PreTrainedModel, *, dropout: bool) -> Policy:
    policy = Policy(model, shared=False, options=PolicyOptions(dropout=dropout))
    policy.train()
    return policy


def logps_and_slopes(policy: Policy) -> tuple[torch.Tensor, list[torch.Tensor]]:
    policy.zero_grad()
    found = policy(pack(ROWS)).logps_N
    (found * torch.linspace(-1, 1, len(found))).sum().backward()
    return found.detach(), [w.grad for w in policy.parameters() if w.grad is not None]


@pytest.mark.parametrize("checkpoints", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", NOISY)
def test_two_passes_are_equal_to_each_other_and_to_evaluation(name: str, checkpoints: bool) -> None:
    """Check first that with dropout on, the config's rates make two passes differ."""
    model = model_of(NOISY[name]())
    with torch.no_grad():
        expected = Policy(model, shared=False)(pack(ROWS)).logps_N
        noisy = training(model, dropout=True)
        assert not torch.equal(noisy(pack(ROWS)).logps_N, noisy(pack(ROWS)).logps_N)
    grad_logps = logps_and_slopes(training(model, dropout=False))[1]
    if checkpoints:
        checkpoint_layers(model, place=name)

    policy = training(model, dropout=False)
    found = [logps_and_slopes(policy) for _ in range(2)]

    for logps, ours in found:
        assert torch.equal(logps, found[0][0])
        assert (logps - expected).abs().max() <= 1e-5
        margins = pack(ROWS).sums(logps - expected).view(-1, 2) @ torch.tensor([1.0, -1.0])
        assert (-torch.nn.functional.logsigmoid(margins)).mean() == pytest.approx(math.log(2), 1e-4)
        for one, other in zip(ours, grad_logps, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_layers_run_again_in_the_backward_pass_without_dropout_too() -> None:
    model = model_of(NOISY["gpt2"]())
    checkpoint_layers(model, place="model")
    policy = training(model, dropout=False)
    layer, modes = model.transformer.h[0], []
    layer.attn.register_forward_pre_hook(lambda *_: modes.append(layer.training))

    policy(pack(ROWS[:1])).logps_N.sum().backward()

    assert modes == [False] * 4  # two texts, each forward and again
    assert layer.training


def test_an_evaluation_between_steps_does_not_end_checkpointing() -> None:
    model = model_of(NOISY["gpt2"]())
    checkpoint_layers(model, place="model")
    policy = training(model, dropout=False)

    policy.eval()
    assert not any(module.training for module in policy.modules())
    policy.train()

    layers = list(model.transformer.h)
    assert [name.training for name in layers] == [True] * len(layers)
    assert not any(m.training for m in model.modules() if isinstance(m, nn.Dropout))
