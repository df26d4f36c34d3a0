"""Backward pass of causal attention against autograd through the formula, and torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpo.data.packing import Segment
from dpo.model import attention_cpu
from dpo.model.attention import attend_packs, causal_bias

CPU = torch.device("cpu")
SHAPES = {
    "whole": (40, 40, 4, 4),
    "grouped": (300, 300, 6, 2),
    "the end of a text": (37, 201, 6, 2),
    "one query": (1, 9, 2, 1),
    "several blocks over a prompt": (290, 400, 3, 1),
}


def states(shape: str, dtype: torch.dtype) -> list[Tensor]:
    """Return query, key, value and the gradient of the output."""
    torch.manual_seed(0)
    queries, keys, heads, groups = SHAPES[shape]
    sizes = [(heads, queries, 16), (groups, keys, 16), (groups, keys, 16), (heads, queries, 16)]
    return [2 * torch.randn(1, *size, dtype=torch.float64).to(dtype) for size in sizes]


def by_formula(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    heads = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
    later = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool)
    later = later.triu(1 + key.shape[2] - query.shape[2])
    scores = (query @ key.mT * scale).masked_fill(later, -math.inf)
    return scores.softmax(-1) @ value


def own(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    queries, keys = query.shape[2], key.shape[2]
    whole = queries == keys
    bias = None if whole else causal_bias(queries, keys, None, query.dtype, CPU)
    return attention_cpu.attend_causal(query, key, value, bias, scale)


def torchs(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    queries, keys = query.shape[2], key.shape[2]
    bias = causal_bias(queries, keys, None, query.dtype, CPU)
    return F.scaled_dot_product_attention(query, key, value, bias, scale=scale, enable_gqa=True)


def gradients(function, shape: str, dtype: torch.dtype) -> list[Tensor]:
    *inputs, grad = states(shape, dtype)
    leaves = [some.requires_grad_() for some in inputs]
    return list(torch.autograd.grad(function(*leaves, 0.2), leaves, grad))


def errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    return [
        float((one.double() - other).norm() / other.norm())
        for one, other in zip(found, wanted, strict=True)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_formula(shape: str) -> None:
    wanted = gradients(by_formula, shape, torch.float64)
    assert max(errors(gradients(own, shape, torch.float64), wanted)) < 1e-12
    assert max(errors(gradients(own, shape, torch.float32), wanted)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_they_are_as_near_as_torchs_own(shape: str) -> None:
    *inputs, grad = (some.double() for some in states(shape, torch.bfloat16))
    leaves = [some.requires_grad_() for some in inputs]
    wanted = list(torch.autograd.grad(by_formula(*leaves, 0.2), leaves, grad))
    ours, theirs = (
        errors(gradients(function, shape, torch.bfloat16), wanted) for function in (own, torchs)
    )
    assert sum(ours) < 1.25 * sum(theirs) + 1e-12


def test_long_texts_run_in_smaller_blocks() -> None:
    """Use more heads and keys than a block of `ROWS` queries may have."""
    heads, length = 64, 600
    assert heads * length * attention_cpu.ROWS > attention_cpu.SCORES
    torch.manual_seed(0)
    *leaves, grad = torch.randn(4, 1, heads, length, 4, dtype=torch.float64).unbind()
    leaves = [some.clone().requires_grad_() for some in leaves]
    found, wanted = (
        list(torch.autograd.grad(function(*leaves, 0.5), leaves, grad))
        for function in (own, by_formula)
    )
    assert max(errors(found, wanted)) < 1e-12


def test_values_may_be_wider_than_keys() -> None:
    torch.manual_seed(0)
    leaves = [
        torch.randn(1, heads, 5, size, dtype=torch.float64, requires_grad=True)
        for heads, size in ((4, 6), (2, 6), (2, 8))
    ]
    assert torch.autograd.gradcheck(lambda *inputs: own(*inputs, 0.3), leaves)


def test_autocast_decides_the_dtype_for_states_of_any_dtype() -> None:
    query, key, value, _ = states("whole", torch.float32)
    segments = [Segment(30, (10,))]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = attend_packs(
            torch.nn.Identity(), query, key, value.bfloat16(), None, segments=segments
        )
    wanted = by_formula(query, key, value, 16**-0.5).transpose(1, 2)
    assert found.dtype == torch.bfloat16
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
