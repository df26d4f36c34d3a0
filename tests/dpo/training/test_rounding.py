"""Weights in bfloat16 move by small steps, on average as far as in float32."""

import pytest
import torch
from torch import nn

from dpo.optimizer_config import OptimizerConfig
from dpo.training.optimizer import init_optimizer_state, make_optimizer
from dpo.training.rounding import round_stochastically, step_in_float32


def stepped(dtype: torch.dtype, *, name: str = "adamw", rounds: bool = True) -> torch.Tensor:
    """Return how far 20 steps of rate 1e-6 move weights of 0.05, with a constant gradient."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.full((100_000,), 0.05, dtype=dtype))
    start = weight.detach().float().clone()
    config = OptimizerConfig.model_validate({"name": name, "learning_rate": 1e-6})
    optimizer = make_optimizer(nn.ParameterList([weight]), config)
    if rounds:
        step_in_float32(optimizer)
    init_optimizer_state(optimizer)
    for _ in range(20):
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()
    return weight.detach().float() - start


def test_rounding_to_the_nearest_loses_every_step() -> None:
    assert not stepped(torch.bfloat16, rounds=False).any()


@pytest.mark.parametrize("name", ["adamw", "rmsprop"])
def test_a_rate_of_1e_6_moves_weights_as_in_float32_on_average(name: str) -> None:
    whole = stepped(torch.float32, name=name).mean()

    assert torch.isclose(stepped(torch.bfloat16, name=name).mean(), whole, rtol=0.1)


def test_float32_weights_are_stepped_as_before() -> None:
    assert torch.equal(stepped(torch.float32), stepped(torch.float32, rounds=False))


def test_rounding_is_right_on_average_and_keeps_what_is_exact() -> None:
    torch.manual_seed(0)
    values = torch.tensor([1.001, -1.001, 0.0, 3e-5]).repeat_interleave(100_000)

    rounded = round_stochastically(values).float().view(4, -1)
    assert torch.allclose(rounded.double().mean(1), values.view(4, -1)[:, 0].double(), rtol=1e-3)
    assert not rounded[2].any()
    exact = torch.randn(1000).bfloat16()
    assert torch.equal(round_stochastically(exact.float()), exact)


def test_moments_stay_float32_over_saving_and_loading() -> None:
    weight = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizers = [make_optimizer(nn.ParameterList([weight]), OptimizerConfig()) for _ in range(2)]
    for optimizer in optimizers:
        step_in_float32(optimizer)
    weight.grad = torch.full_like(weight, 1 / 3)
    optimizers[0].step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())

    first, second = (optimizer.state[weight]["exp_avg"] for optimizer in optimizers)
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
