"""Tiled head against log_softmax over the whole vocabulary."""

import pytest
import torch
from torch import Tensor

from dpo.model.logps import Head, Sizes, logps_and_collisions

N, H, V = 7, 6, 301


def inputs(*, bias: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    torch.manual_seed(1)
    hidden = torch.randn(N, H, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, H, dtype=dtype, requires_grad=True)
    offset = torch.randn(V, dtype=dtype, requires_grad=True) if bias else None
    return hidden, weight, offset, torch.randint(0, V, (N,))


def plain(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    logits = hidden @ head.weight_VH.T
    if head.bias_V is not None:
        logits = logits + head.bias_V
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]


def token_logps(hidden: Tensor, head: Head, targets: Tensor, sizes: Sizes | None = None) -> Tensor:
    return logps_and_collisions(hidden, head, targets, sizes=sizes)[0]


SIZES = {
    "one tile": Sizes(N, 1 << 20, 0),
    "one tile, kept": Sizes(N, 1 << 20, 1 << 20),
    "slices of the vocabulary": Sizes(N, 64 * 4 * N, 0),
    "slices of both": Sizes(3, 1, 0),
    "slices of both, all kept": Sizes(3, 1, 1 << 20),
    "slices of both, some kept": Sizes(3, 1, 2 * 64 * 4 * 3),
    "room for a smaller one later": Sizes(3, 1, 64 * 4 * 3 + 64 * 4),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("bias", "scale", "softcap"),
    [(False, 1.0, None), (True, 1.0, None), (False, 0.25, None), (True, 0.5, 3.0)],
)
def test_tiles_give_log_softmax_and_its_gradients(
    bias: bool, scale: float, softcap: float | None, sizes: Sizes
) -> None:
    hidden, weight, offset, targets = inputs(bias=bias, dtype=torch.float32)
    head = Head(weight, offset, scale, softcap)
    pull = torch.linspace(-1, 2, N)
    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None]

    tiled = token_logps(hidden, head, targets, sizes=sizes)
    whole = plain(hidden, head, targets)
    found = torch.autograd.grad((tiled * pull).sum(), leaves)
    expected = torch.autograd.grad((whole * pull).sum(), leaves)

    torch.testing.assert_close(tiled, whole, atol=2e-6, rtol=1e-6)
    logps, agree = logps_and_collisions(
        hidden, head._replace(log_sum_sq_probs=True), targets, sizes=sizes
    )
    every = [plain(hidden, head, torch.full_like(targets, v)) for v in range(V)]
    torch.testing.assert_close(agree, (2 * torch.stack(every)).logsumexp(0), atol=2e-6, rtol=1e-6)
    assert torch.equal(logps, tiled)
    assert not agree.requires_grad
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-5)


def test_a_graph_can_be_walked_twice() -> None:
    hidden, weight, _, targets = inputs(bias=False, dtype=torch.float32)
    loss = token_logps(hidden, Head(weight), targets, sizes=Sizes(3, 1, 2 * 64 * 4 * 3)).sum()

    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(loss, (hidden, weight))

    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_head_that_adds_keeps_the_gradient_that_is_there(sizes: Sizes) -> None:
    hidden, weight, offset, targets = inputs(bias=True, dtype=torch.float32)
    before = torch.randn_like(weight)
    for start in (None, before):
        weight.grad = None if start is None else start.clone()
        kept = weight.grad
        head = Head(weight, offset, 0.5, None, adds=True)
        token_logps(hidden, head, targets, sizes=sizes).sum().backward()
        loss = plain(hidden, head, targets).sum()
        (wanted,) = torch.autograd.grad(loss, weight)
        wanted = wanted if start is None else wanted + start
        torch.testing.assert_close(weight.grad, wanted, atol=5e-6, rtol=1e-5)
        assert kept is None or weight.grad is kept


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _, targets = inputs(bias=False, dtype=torch.float32)
    weight = weight.detach()

    token_logps(hidden, Head(weight), targets).sum().backward()

    assert weight.grad is None
    assert hidden.grad is not None


def test_bfloat16_hidden_states_are_summed_in_float32() -> None:
    hidden, weight, _, targets = inputs(bias=False, dtype=torch.bfloat16)

    logps = token_logps(hidden, Head(weight), targets)
    exact = plain(hidden.float(), Head(weight.float()), targets)

    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps, exact, atol=0.05, rtol=0)


def test_no_tokens_have_no_log_probs() -> None:
    head = Head(torch.randn(V, H))

    assert token_logps(torch.zeros(0, H), head, torch.zeros(0, dtype=torch.long)).shape == (0,)
