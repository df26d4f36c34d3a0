"""Linear layers by oneDNN against torch's own, in and out of the context."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from dpo.model.cpu_layers import use_onednn
from dpo.model.cpu_products import is_for_onednn, multiply
from dpo.model.dropout import train_without_dropout
from dpo.sampling.laid_out import LAID_OUT, CpuLinears
from tests.dpo.tiny import tiny_model

IDS = torch.randint(3, 120, (5, 17), generator=torch.Generator().manual_seed(0))
MODELS = {
    "llama": lambda: tiny_model(),
    "gpt2, whose layers have biases and transposed weights": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    ).eval(),
}


class Own(nn.Linear):
    """A layer of another kind, which must not be replaced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


@torch.inference_mode()
def logits(model: PreTrainedModel, rows: int) -> torch.Tensor:
    return model(input_ids=IDS[:rows]).logits


@pytest.mark.parametrize("laid_out", [0, LAID_OUT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_torchs_layers(name: str, dtype: torch.dtype, laid_out: int) -> None:
    model = MODELS[name]().to(dtype)
    linears = CpuLinears(model, laid_out)
    exact = MODELS[name]().double()
    exact.load_state_dict(model.state_dict())

    for rows in (1, 5):
        plain, truth = logits(model, rows), logits(exact, rows)
        with linears.running():
            found = logits(model, rows)

        # no further from the truth than torch is, but for the last bits
        bound = 2 * float((plain - truth).abs().max())
        assert float((found - truth).abs().max()) <= max(bound, 1e-5)
        assert torch.equal(logits(model, rows), plain)


def test_every_linear_layer_is_run_and_no_other() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Own(4, 4), nn.Linear(4, 4).double(), nn.LayerNorm(4))

    linears = CpuLinears(model)

    assert list(linears.weights) == [model[0]]
    assert len(CpuLinears(tiny_model()).weights) == 2 * 7 + 1
    with linears.running():
        assert "forward" in vars(model[0])
    with pytest.raises(RuntimeError), linears.running():
        model(torch.zeros(1, 5))
    assert "forward" not in vars(model[0])


def test_layers_that_another_context_runs_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with CpuLinears(model).running():
        assert not CpuLinears(model).weights


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN whatever the processor is."""
    for module in ("cpu_products", "cpu_layers"):
        monkeypatch.setattr(f"dpo.model.{module}.is_faster", lambda: True)


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4), (0,)], ids=str)
@pytest.mark.parametrize("frozen", ["nothing", "weight", "input"])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_torchs_layers(
    shape: tuple[int, ...], frozen: str, bias: bool
) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(6, 9, bias=bias), nn.Linear(6, 9, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    use_onednn(ours)
    x = torch.randn(*shape, 6)
    inputs = [x.clone().requires_grad_(frozen != "input") for _ in range(2)]
    for layer, data in zip((ours, theirs), inputs, strict=True):
        layer.weight.requires_grad_(frozen != "weight")
        (layer(data).sin() * torch.arange(9.0)).sum().backward()

    assert "forward" in vars(ours)
    pairs = [(ours.weight.grad, theirs.weight.grad), (inputs[0].grad, inputs[1].grad)]
    pairs += [(ours.bias.grad, theirs.bias.grad)] if bias else []
    for found, expected in pairs:
        assert (found is None) == (expected is None)
        assert found is None or torch.allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_model_learns_as_with_torchs_layers(checkpointed: bool, name: str) -> None:
    grads = []
    for by_onednn in (True, False):
        torch.manual_seed(1)
        model = MODELS[name]().train()
        train_without_dropout(model)
        if by_onednn:
            use_onednn(model)
            assert any("forward" in vars(layer) for layer in model.modules())
        if checkpointed:
            model.activation_checkpointing_enable()
        model(input_ids=IDS, labels=IDS).loss.backward()
        grads.append([parameter.grad for parameter in model.parameters()])

    for found, expected in zip(*grads, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("faster")
def test_only_plain_float32_layers_are_trained_by_onednn() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Own(4, 4), nn.Linear(4, 4).bfloat16(), nn.LayerNorm(4))
    use_onednn(model)

    assert [("forward" in vars(layer)) for layer in model] == [True, False, False, False]
    with torch.autocast("cpu", torch.bfloat16):
        assert model[0](torch.ones(2, 4)).dtype == torch.bfloat16
    trained = vars(model[0])["forward"]
    linears = CpuLinears(model)
    with linears.running():
        assert vars(model[0])["forward"] is not trained
    assert vars(model[0])["forward"] is trained


def test_nothing_changes_where_torch_is_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpo.model.cpu_layers.is_faster", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4))
    use_onednn(model)

    assert "forward" not in vars(model[0])


@pytest.mark.usefixtures("faster")
def test_products_are_those_of_torch() -> None:
    left, right = torch.randn(7, 5), torch.randn(3, 5)

    assert torch.allclose(multiply(left, right), left @ right.T, atol=1e-6)
    assert torch.allclose(multiply(left[:3].T, right.T), left[:3].T @ right, atol=1e-6)
    assert multiply(left.bfloat16(), right.bfloat16()).dtype == torch.bfloat16


@pytest.mark.usefixtures("faster")
def test_a_model_may_change_the_output_in_place() -> None:
    layer, x = nn.Linear(4, 4), torch.ones(2, 3, 4)
    use_onednn(layer)
    layer(x).mul_(2).sum().backward()

    assert torch.equal(layer.weight.grad, torch.full((4, 4), 12.0))


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("other", [torch.ones(2, 2, device="meta"), torch.ones(2, 2).double()])
def test_other_devices_and_dtypes_run_as_always(other: torch.Tensor) -> None:
    assert is_for_onednn(torch.ones(2, 2))
    assert not is_for_onednn(other)
