"""Hidden states to log-probs of the next tokens, without ever a `[tokens, vocab]` tensor.

The head runs over tiles: a slice of the tokens by a slice of the vocabulary, small enough to stay
in a cache. The forward pass accumulates one number per token, the logsumexp, tile by tile (online
softmax, https://arxiv.org/abs/1805.02867). The backward pass reuses the tiles that fit a fixed
budget and recomputes the others. Each pass reads a slice of the weight once and writes its gradient
once, so a large vocabulary costs only its products. Peak memory grows with the hidden size, not
with the vocabulary.

Axes: N tokens, H hidden, V vocabulary; n and v are the slices that a tile covers.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpo.model.cpu_products import is_for_onednn, multiply


class Head(NamedTuple):
    """Map from a hidden state to logits: softcap·tanh(scale·(W h + b) / softcap)."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    adds: bool = False
    """True to add the weight's gradient directly to `weight_VH.grad`, past autograd: it saves one
    matrix of the weight's size and one pass over it. Only for a float32 weight that is a leaf, in
    one process; only `backward` then gives its gradient."""
    log_sum_sq_probs: bool = False
    """True to compute log Σ p² too, which is NaN otherwise."""


class Sizes(NamedTuple):
    """Sizes of tiles, and memory for those that are kept for the backward pass."""

    tokens: int
    """Maximum tokens of a tile."""
    tile: int
    """Maximum bytes of a tile."""
    kept: int
    """Maximum bytes of all kept tiles."""


# A CPU's tile fits its second-level cache; a GPU's is large enough to occupy all of its cores.
CPU_SIZES = Sizes(tokens=1024, tile=2**20, kept=128 * 2**20)
GPU_SIZES = Sizes(tokens=4096, tile=256 * 2**20, kept=512 * 2**20)
KEPT_PER_HIDDEN = 80
"""Maximum bytes of kept tiles over bytes of hidden states, independent of the vocabulary."""


def logps_and_collisions(
    hidden_NH: Tensor, head: Head, targets_N: Tensor, *, sizes: Sizes | None = None
) -> tuple[Tensor, Tensor]:
    """Return the log-prob of each target given its hidden state, and log Σ_v p(v)²: both (N,).

    Both are in nats and float32. Matrix products run in the dtype of `hidden_NH`, sums in float32.
    Gradients of the first flow into the hidden states and, if they require grad, into the head's
    weight and bias. Σ_v p(v)² is the chance that two draws of the next token agree, and the mean of
    p itself; it has no gradient.
    """
    if sizes is None:
        sizes = CPU_SIZES if hidden_NH.device.type == "cpu" else GPU_SIZES
    found: tuple[Tensor, Tensor] = _TokenLogps.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head.weight_VH, head.bias_V, targets_N, (head, sizes)
    )
    return found


class _Kept(NamedTuple):
    """Tile that is kept between the passes: exp(logits − top), and the top of each token."""

    exps_nv: Tensor
    top_n: Tensor


class _TokenLogps(torch.autograd.Function):
    """log softmax(logits)[target], with the logsumexp and some tiles kept between the passes."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        options: tuple[Head, Sizes],
    ) -> tuple[Tensor, Tensor]:
        head, sizes = options
        head = head._replace(weight_VH=weight_VH, bias_V=bias_V)
        top_N = hidden_NH.new_full((len(hidden_NH),), -torch.inf, dtype=torch.float32)
        sum_N, squares_N = torch.zeros_like(top_N), torch.zeros_like(top_N)
        # the slope of a soft cap needs the logits themselves, so such tiles are recomputed
        room = min(sizes.kept, KEPT_PER_HIDDEN * 4 * hidden_NH.numel())
        room = room if any(ctx.needs_input_grad) and head.softcap is None else 0
        kept: list[_Kept] = []
        for n, v in _tiles(len(hidden_NH), len(weight_VH), sizes):
            tile = _logits(hidden_NH[n], head, v)
            top_n = torch.maximum(top_N[n], tile.amax(-1))
            exps = tile.sub_(top_n[:, None]).exp_()
            shrink_n = (top_N[n] - top_n).exp_()
            sum_N[n] = sum_N[n] * shrink_n + exps.sum(-1)
            if head.log_sum_sq_probs:
                squares_N[n] = squares_N[n] * shrink_n**2 + exps.square().sum(-1)
            top_N[n] = top_n
            if room >= exps.nbytes:
                kept.append(_Kept(exps, top_n))
                room -= exps.nbytes
            else:
                room = 0  # only the first tiles are kept, though a smaller one might still fit
        has_squares = head.log_sum_sq_probs
        agree_N = (squares_N / sum_N**2).log_() if has_squares else squares_N.fill_(torch.nan)
        lse_N = sum_N.log_() + top_N
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, lse_N)
        ctx.head, ctx.sizes, ctx.kept = head, sizes, kept
        ctx.leaf = weight_VH if head.adds and ctx.needs_input_grad[1] else None
        ctx.mark_non_differentiable(agree_N)
        return _target_logits(hidden_NH, head, targets_N) - lse_N, agree_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, targets_N, lse_N = ctx.saved_tensors
        head: Head = ctx.head._replace(weight_VH=weight_VH, bias_V=bias_V)
        kept, ctx.kept = ctx.kept, []  # used up: a second backward pass recomputes all tiles
        total = _Gradients.of(head, hidden_NH, ctx.needs_input_grad, ctx.leaf)
        for place, (n, v) in enumerate(_tiles(len(hidden_NH), len(weight_VH), ctx.sizes)):
            if place < len(kept):
                shrink_n = (kept[place].top_n - lse_N[n]).exp_()
                d_nv = kept[place].exps_nv.mul_((-grads[0][n] * shrink_n)[:, None])
            else:
                tile = _logits(hidden_NH[n], head, v)
                d_nv = _slopes(tile, lse_N[n], -grads[0][n], head.softcap)
            total.add_tile(n, v, d_nv, head, hidden_NH)
        total.add_targets(targets_N, grads[0], head, hidden_NH)
        if ctx.leaf is not None:
            ctx.leaf.grad, total.weight = total.weight, None
        return total.hidden, total.weight, total.bias, None, None


class _Gradients:
    """The three gradients of a pass, float32 until they are returned."""

    def __init__(
        self, hidden: Tensor | None, weight: Tensor | None, bias: Tensor | None, *, begun: bool
    ) -> None:
        self.hidden, self.weight, self.bias = hidden, weight, bias
        self.begun = begun  # the weight's gradient already contains that of other passes

    @classmethod
    def of(
        cls, head: Head, hidden_NH: Tensor, needed: tuple[bool, ...], leaf: Tensor | None
    ) -> "_Gradients":
        def zeros(like: Tensor | None, wanted: bool) -> Tensor | None:  # noqa: FBT001
            return (
                torch.zeros_like(like, dtype=torch.float32) if wanted and like is not None else None
            )

        weight = None if leaf is None else leaf.grad
        begun = weight is not None
        if needed[1] and not begun:
            # the first slice of tokens writes every row of it: no zeros are needed
            weight = torch.empty_like(head.weight_VH, dtype=torch.float32)
        bias = zeros(head.bias_V, needed[2])
        return cls(zeros(hidden_NH, needed[0]), weight, bias, begun=begun)

    def add_tile(self, n: slice, v: slice, d_nv: Tensor, head: Head, hidden_NH: Tensor) -> None:
        """Add d loss / d (W h + b) of a tile to the gradients."""
        if head.scale != 1.0:
            d_nv = d_nv.mul_(head.scale)
        if self.bias is not None:
            self.bias[v] += d_nv.sum(0)
        d_nv = d_nv.to(hidden_NH.dtype)
        if self.hidden is not None:
            _add_product(self.hidden[n], d_nv, head.weight_VH[v].to(d_nv.dtype), first=False)
        if self.weight is not None:
            first = n.start == 0 and not self.begun
            _add_product(self.weight[v], d_nv.T, hidden_NH[n], first=first)

    def add_targets(self, targets_N: Tensor, grad_N: Tensor, head: Head, hidden_NH: Tensor) -> None:
        """Add the one-hot part of the gradient of log softmax, then cast to the final dtypes."""
        logits_N = _target_logits(hidden_NH, head, targets_N)
        slope_N = 1.0 if head.softcap is None else 1 - (logits_N / head.softcap) ** 2
        d_N = grad_N * slope_N * head.scale
        if self.hidden is not None:
            self.hidden += d_N[:, None] * head.weight_VH[targets_N]
            self.hidden = self.hidden.to(hidden_NH.dtype)
        if self.weight is not None:
            self.weight.index_add_(0, targets_N, d_N[:, None] * hidden_NH)
            self.weight = self.weight.to(head.weight_VH.dtype)
        if self.bias is not None and head.bias_V is not None:
            self.bias = self.bias.index_add_(0, targets_N, d_N).to(head.bias_V.dtype)


def _logits(hidden_nH: Tensor, head: Head, v: slice) -> Tensor:
    """Return a tile of logits, (n, v), float32."""
    tile = multiply(hidden_nH, head.weight_VH[v].to(hidden_nH.dtype)).float()
    if head.bias_V is not None:
        tile += head.bias_V[v]
    if head.scale != 1.0:
        tile *= head.scale
    return tile if head.softcap is None else tile.div_(head.softcap).tanh_().mul_(head.softcap)


def _slopes(tile: Tensor, lse_n: Tensor, scale_n: Tensor, softcap: float | None) -> Tensor:
    """Return scale · softmax of a tile of logits, times the slope of the soft cap, (n, v)."""
    slope = None if softcap is None else 1 - (tile / softcap) ** 2
    tile.sub_(lse_n[:, None]).exp_().mul_(scale_n[:, None])
    return tile if slope is None else tile.mul_(slope)


def _target_logits(hidden_NH: Tensor, head: Head, targets_N: Tensor) -> Tensor:
    """Return the logit of each target, (N,), float32."""
    logits_N = (hidden_NH.float() * head.weight_VH[targets_N]).sum(-1)
    if head.bias_V is not None:
        logits_N += head.bias_V[targets_N]
    logits_N *= head.scale
    if head.softcap is not None:
        logits_N = head.softcap * torch.tanh(logits_N / head.softcap)
    return logits_N


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """Compute total (+)= left @ right, with the sum in float32 for any dtype of the factors."""
    if left.dtype == total.dtype and not is_for_onednn(left):
        torch.mm(left, right, out=total) if first else total.addmm_(left, right)
    elif first:
        total.copy_(multiply(left, right.T))
    else:
        total += multiply(left, right.T)


def _tiles(tokens: int, vocabulary: int, sizes: Sizes) -> Iterator[tuple[slice, slice]]:
    """Yield slices of tokens by slices of the vocabulary; the vocabulary varies fastest."""
    tall = max(1, min(tokens, sizes.tokens))
    wide = max(64, sizes.tile // (4 * tall))
    for n in range(0, tokens, tall):
        for v in range(0, vocabulary, wide):
            yield slice(n, min(n + tall, tokens)), slice(v, min(v + wide, vocabulary))
