"""Draws of tokens: a pure function of logits and uniform numbers.

Letters in shapes: R rows, V vocabulary, N tokens that are looked at.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NUCLEUS = 256
"""Tokens looked at first for top-p; the whole vocabulary if they do not suffice."""
BLOCK = 128
"""Tokens whose weights are summed before one of them is looked for."""


class Sampling(NamedTuple):
    """Settings of the draw of a token."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64


def draw(logits_RV: Tensor, uniforms_R: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return one token of each row, (R,), and its log-prob at temperature 1 in nats, (R,).

    The token is the inverse CDF at the uniform. Tokens keep the vocabulary's order, so that
    rounding cannot swap two tokens of nearly the same probability.
    """
    top_R1 = logits_RV.amax(-1, keepdim=True)
    weights_RV = (logits_RV - top_R1).exp_()
    total_R1 = weights_RV.sum(-1, keepdim=True)
    if sampling.temperature == 0:
        tokens_R = logits_RV.argmax(-1)
    else:
        if sampling.temperature != 1:
            weights_RV = (logits_RV - top_R1).div_(sampling.temperature).exp_()
        choose = _invert if sampling.top_p == 1 else _invert_nucleus
        tokens_R = choose(weights_RV, uniforms_R, sampling.top_p)
    scores_R1 = logits_RV.gather(1, tokens_R[:, None]) - top_R1
    return tokens_R, (scores_R1 - total_R1.log())[:, 0]


def _invert_nucleus(weights_RV: Tensor, uniforms_R: Tensor, top_p: float) -> Tensor:
    """Return the token at the uniform's share of the nucleus.

    That is the smallest set of the likeliest tokens with `top_p` of the total weight.
    """
    needed_R1 = top_p * weights_RV.sum(-1, keepdim=True)
    best_RN, ids_RN = weights_RV.topk(min(NUCLEUS, weights_RV.shape[-1]))
    if bool((best_RN.sum(-1, keepdim=True) < needed_R1).any()):
        best_RN, ids_RN = weights_RV.sort(-1, descending=True)
    before_RN = best_RN.cumsum(-1, dtype=torch.float64) - best_RN
    best_RN = best_RN.masked_fill(before_RN >= needed_R1, 0)
    ids_RN, order_RN = ids_RN.sort(-1)
    places_R = _invert(best_RN.gather(1, order_RN), uniforms_R, 1.0)
    return ids_RN.gather(1, places_R[:, None])[:, 0]


def _invert(weights_RN: Tensor, uniforms_R: Tensor, _top_p: float) -> Tensor:
    """Return the first index whose cumulative weight exceeds the uniform's share of the total.

    First the block of tokens is found, then the token in it: one pass over the weights, where a
    cumulative sum in float64 of all of them would be several.
    """
    size = weights_RN.shape[1]
    whole = size - size % BLOCK
    sums_RN = weights_RN[:, :whole].view(len(weights_RN), -1, BLOCK).sum(-1)
    if whole < size:
        sums_RN = torch.cat((sums_RN, weights_RN[:, whole:].sum(-1, keepdim=True)), 1)
    block_R1, share_R1 = _find(sums_RN, uniforms_R[:, None])
    places_RN = block_R1 * BLOCK + torch.arange(BLOCK, device=block_R1.device)
    inside_RN = weights_RN.gather(1, places_RN.clamp(max=size - 1))
    place_R1, _ = _find(inside_RN.masked_fill(places_RN >= size, 0), share_R1)
    return (block_R1 * BLOCK + place_R1)[:, 0]


def _find(weights_RN: Tensor, shares_R1: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index whose cumulative weight exceeds a share of the total, (R, 1).

    Also returns how far into the weight of that index the share reaches, from 0 to 1.
    """
    ends_RN = weights_RN.cumsum(-1, dtype=torch.float64)
    total_R1 = ends_RN[:, -1:]
    # below the total, so that an index with a weight is found
    targets_R1 = torch.minimum(shares_R1 * total_R1, total_R1.nextafter(torch.zeros_like(total_R1)))
    index_R1 = torch.searchsorted(ends_RN, targets_R1, right=True)
    weight_R1 = weights_RN.gather(1, index_R1).double()
    reached_R1 = targets_R1 - (ends_RN.gather(1, index_R1) - weight_R1)
    return index_R1, (reached_R1 / weight_R1).clamp(0, 1)
