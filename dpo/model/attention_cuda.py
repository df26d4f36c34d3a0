"""Attention over a pack in one kernel: FlexAttention, https://arxiv.org/abs/2412.05496, for GPUs.

Text by text, as on a CPU, would launch hundreds of small kernels per layer. Here a block mask says
which tokens see which, and the kernel skips blocks that see nothing.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from dpo.data.packing import Segment

Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class AttentionOptions(NamedTuple):
    """Options that a layer passes to its attention."""

    scaling: float | None
    dropout: float
    window: int | None
    softcap: float | None


def attend(
    query_BHTD: Tensor,
    key_BGTD: Tensor,
    value_BGTD: Tensor,
    segments: Sequence[Segment],
    how: AttentionOptions,
) -> Tensor:
    """Return the attention of the whole pack, (B, T, H, D); the kernel has no dropout."""
    device = query_BHTD.device
    run = _compiled() if device.type == "cuda" else flex_attention
    output: Tensor = run(
        query_BHTD,
        key_BGTD,
        value_BGTD,
        score_mod=None if how.softcap is None else _capped(how.softcap),
        block_mask=block_mask(tuple(segments), how.window, device),
        scale=how.scaling,
        enable_gqa=query_BHTD.shape[1] != key_BGTD.shape[1],
    )
    return output.transpose(1, 2)


@lru_cache(maxsize=8)  # for the layers of one pass: with a window and without
def block_mask(
    segments: tuple[Segment, ...], window: int | None, device: torch.device
) -> BlockMask:
    """Return the mask: a token sees its prompt and its own completion up to itself."""
    tokens = sum(segment.prompt + sum(segment.completions) for segment in segments)
    return create_block_mask(
        mask_mod(segments, window, device), None, None, tokens, tokens, device=device
    )


def mask_mod(segments: Sequence[Segment], window: int | None, device: torch.device) -> Mask:
    """Return the mask as a function of query and key positions."""
    lengths: list[int] = []
    groups: list[int] = []
    texts: list[int] = []
    starts: list[int] = []
    for number, segment in enumerate(segments):
        lengths += [segment.prompt, *segment.completions]
        groups += [number] * (1 + len(segment.completions))
        texts += range(1 + len(segment.completions))  # 0 is the prompt
        starts += [0, *[segment.prompt] * len(segment.completions)]
    repeats = torch.tensor(lengths)
    ends = repeats.cumsum(0)
    within = torch.arange(int(ends[-1])) - (ends - repeats).repeat_interleave(repeats)
    group_T, text_T, start_T = (
        torch.tensor(values).repeat_interleave(repeats).to(device)
        for values in (groups, texts, starts)
    )
    position_T = start_T + within.to(device)

    def mask(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_ours = (group_T[query] == group_T[key]) & (
            (text_T[key] == 0) | (text_T[key] == text_T[query])
        )
        seen = is_ours & (position_T[key] <= position_T[query])
        if window is not None:
            seen &= position_T[key] > position_T[query] - window
        return seen

    return mask


def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
