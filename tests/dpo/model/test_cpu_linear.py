"""Linear layers by oneDNN against torch's own, in and out of the context."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from dpo.model.cpu_linear import LAID_OUT, CpuLinears
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
