"""Causal attention on a CPU: torch's forward pass, and a backward pass of batched products.

torch's own backward pass runs tile by tile and head by head; in bfloat16 it spends most of its time
between the products. This one processes queries in blocks, all heads in one product, and only the
keys that a block sees (appendix B.2 of https://arxiv.org/abs/2205.14135):

    P = softmax(s Q Kᵀ)    dV = Pᵀ dO    dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O))
    dQ = s dS K            dK = s dSᵀ Q

Scores are float32, and so are the sums of dK and dV. The row sums are extra columns of dO,
multiplied by extra ones in V, so they need no pass over a block of their own.

Axes: H heads, G key heads of R heads each, Q queries, K keys, D head size; b is a block's rows.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 128
"""Maximum queries of a block: few, so that almost no score above the diagonal is computed."""
SCORES = 2**22
"""Maximum scores of a block, unless that leaves fewer than `FEWEST` queries."""
FEWEST = 16


def attend_causal(
    query_HQD: Tensor, key_GKD: Tensor, value_GKD: Tensor, bias_QK: Tensor | None, scale: float
) -> Tensor:
    """Return the attention of the last Q tokens of a text over all K; every tensor a batch of one.

    `bias_QK` masks the keys after a query. It is None if Q = K, which torch masks itself.
    """
    found: Tensor = _Causal.apply(  # type: ignore[no-untyped-call]
        query_HQD, key_GKD, value_GKD, bias_QK, scale
    )
    return found


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
    ) -> Tensor:
        output = F.scaled_dot_product_attention(
            query, key, value, bias, is_causal=bias is None, scale=scale, enable_gqa=True
        )
        ctx.save_for_backward(query, key, value, output)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output = (saved[0] for saved in ctx.saved_tensors)
        states = _States(query, key, value, output, grads[0][0], scale=ctx.scale)
        for block in states.blocks():
            states.carry_back(block)
        return *(found[None] for found in states.gradients()), None, None


class _States:
    """States of one text, and their gradients as they accumulate."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        grad: Tensor,
        *,
        scale: float,
    ) -> None:
        self.scale, self.dtype = scale, query.dtype
        wide = torch.promote_types(self.dtype, torch.float32)
        grouped = (len(key), len(query) // len(key))
        sums_HQ = (grad.to(wide) * output.to(wide)).sum(-1, keepdim=True)
        columns = _columns(-sums_HQ, self.dtype)
        stacked = torch.cat((grad, *columns), -1)
        self.query_GRQD = query.reshape(*grouped, *query.shape[1:])
        self.grad_GRQD = stacked.reshape(*grouped, *stacked.shape[1:])
        self.key_GKD, self.scaled_GKD = key.contiguous(), key.to(wide) * scale
        ones = value.new_ones((*value.shape[:2], len(columns)))
        self.value_GKD = torch.cat((value, ones), -1)
        self.d_query_GRQD = torch.empty_like(self.query_GRQD)
        self.d_key_GKD = torch.zeros_like(self.scaled_GKD)
        self.d_value_GKD = torch.zeros_like(value, dtype=wide)

    def blocks(self) -> Iterator[slice]:
        """Yield the blocks of queries."""
        groups, heads, queries, _ = self.query_GRQD.shape
        keys = self.key_GKD.shape[1]
        rows = min(ROWS, max(FEWEST, SCORES // (groups * heads * keys)))
        for start in range(0, queries, rows):
            yield slice(start, min(start + rows, queries))

    def carry_back(self, block: slice) -> None:
        """Add the contribution of a block of queries to the gradients."""
        seen = self.key_GKD.shape[1] - self.query_GRQD.shape[2] + block.stop  # keys of the block
        query = self.query_GRQD[:, :, block].flatten(1, 2)
        grad = self.grad_GRQD[:, :, block].flatten(1, 2)
        weights = self._weights(query, seen, rows=block.stop - block.start)
        grad_logps = torch.bmm(grad, self.value_GKD[:, :seen].mT).mul_(weights)
        d_query = torch.bmm(grad_logps, self.key_GKD[:, :seen])
        into = self.d_query_GRQD[:, :, block]
        into.copy_(d_query.view_as(into))
        _add(self.d_value_GKD[:, :seen], weights.mT, grad[..., : self.d_value_GKD.shape[-1]])
        _add(self.d_key_GKD[:, :seen], grad_logps.mT, query)

    def _weights(self, query: Tensor, seen: int, *, rows: int) -> Tensor:
        """Return softmax of the scores, (G, R·b, seen); the last b keys are the queries' own."""
        scores = torch.bmm(query.to(self.scaled_GKD.dtype), self.scaled_GKD[:, :seen].mT)
        later = torch.ones(rows, rows, dtype=torch.bool).triu_(1)
        own = scores.view(len(scores), -1, rows, seen)[..., seen - rows :]
        own.masked_fill_(later, -torch.inf)
        return torch.softmax(scores, -1).to(self.dtype)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value, in their dtype."""
        d_query, d_key = self.d_query_GRQD.flatten(0, 1), self.d_key_GKD
        return (
            d_query.mul_(self.scale),
            d_key.mul_(self.scale).to(self.dtype),
            self.d_value_GKD.to(self.dtype),
        )


def _columns(numbers: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return numbers in a dtype, and if it is less precise, the rounding errors as well."""
    rounded = numbers.to(dtype)
    if dtype == numbers.dtype:
        return (rounded,)
    return rounded, (numbers - rounded).to(dtype)


def _add(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)
