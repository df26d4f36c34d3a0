"""Attention over packs: each completion attends only to its prompt and to itself.

It is registered with transformers under one name, so any model that takes its attention from
`AttentionInterface` runs on packs unchanged. The pack's segments arrive as a keyword of the
model's forward.

transformers builds a mask over a whole row and does not know of packs. Here the rule behind it is
evaluated at the positions of one text. A causal mask, with or without a window, runs on packs; any
other raises, and such a model runs its texts one by one.

Axes: B is 1, H heads, G key heads, T tokens, D head size.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

from dpo.data.packing import Segment
from dpo.errors import UsageError
from dpo.model import attention_cuda
from dpo.model.attention_cpu import attend_causal
from dpo.model.attention_cuda import AttentionOptions

NAME = "shared_prompt"
AUTO, SEGMENTS, FLEX = "auto", "segments", "flex"
"""Names of backends; `auto` is one of the others, by `backend_of`."""
FLOAT32_SHARED = 160 * 2**10
"""Bytes of shared memory per block that FlexAttention's float32 kernels need for heads of 128: an
A100 has 163 KB, a card for games 99."""
Rule = Callable[..., Any]
"""Function of batch, head, query and key indices: true if the query sees the key."""
READ = 256
"""Maximum queries of a text at which a rule is evaluated."""
HARMLESS = {"position_ids", "cache_position"}
"""Tensor options of a layer that do not change its attention."""
SINKS = "s_aux"
"""Name under which transformers passes attention sinks."""


class PackMask:
    """Rule of a mask, evaluated when an attention layer needs it; shared by layers of one mask."""

    def __init__(self, rule: Rule, device: torch.device) -> None:
        self._rule, self._device = rule, device
        self._windows: dict[int, int | None] = {}

    def window(self, length: int) -> int | None:
        """Return the window for a text of this length, in keys; None if a query sees all.

        Raises NotImplementedError if the rule is neither causal nor a window.
        """
        if length not in self._windows:
            self._windows[length] = self._read(length)
        return self._windows[length]

    def __getitem__(self, places: tuple[slice, ...]) -> "PackMask":
        """Return itself for all of its queries, as models take a part of a mask (Gemma 4)."""
        if any(place not in (slice(None), slice(0, None)) for place in places):
            message = "a part of a mask does not run on packs"
            raise NotImplementedError(message)
        return self

    def _read(self, length: int) -> int | None:
        key_K = torch.arange(length, device=self._device)
        query_Q1 = torch.linspace(0, length - 1, min(length, READ), device=self._device)
        query_Q1 = query_Q1.round().long()[:, None]
        zero = torch.zeros((), dtype=torch.long, device=self._device)
        seen_QK = self._rule(zero, zero, query_Q1, key_K).expand(len(query_Q1), length)
        widest = int(seen_QK[-1].sum())
        if not torch.equal(seen_QK, (key_K <= query_Q1) & (key_K > query_Q1 - widest)):
            message = "a mask that is neither causal nor a sliding window does not run on packs"
            raise NotImplementedError(message)
        return None if widest == length else widest


def read_mask(
    *, mask_function: Rule, device: torch.device | str = "cpu", **_options: Any
) -> PackMask | None:
    """Return the mask for the pack attention, None if causal; transformers calls it."""
    if mask_function is causal_mask_function:
        return None
    return PackMask(mask_function, torch.device(device))


def attend_packs(
    module: nn.Module,  # noqa: ARG001
    query_BHTD: Tensor,
    key_BGTD: Tensor,
    value_BGTD: Tensor,
    attention_mask: PackMask | Tensor | None,
    *,
    segments: Sequence[Segment],
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention of one layer, (B, T, H, D), and no weights; transformers calls it."""
    known = HARMLESS | {SINKS}
    if asked := [n for n, o in options.items() if isinstance(o, Tensor) and n not in known]:
        # biases, chosen blocks: the self-check catches this; the model then runs unshared
        message = f"attention with {', '.join(sorted(asked))} does not run on packs"
        raise NotImplementedError(message)
    how = AttentionOptions(
        options.get("scaling"),
        options.get("dropout", 0.0),
        _window(attention_mask, options.get("sliding_window"), segments),
        options.get("softcap"),
        options.get(SINKS),
    )
    # norms leave queries and keys in float32 under autocast, which does not cover every kernel
    kind = query_BHTD.device.type
    cast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if cast else query_BHTD.dtype
    query, key, value = (states.to(dtype) for states in (query_BHTD, key_BGTD, value_BGTD))
    with torch.autocast(kind, enabled=False):
        name, device = options.get("backend", AUTO), query.device
        backend = backend_of(name, device, dtype, dropout=how.dropout)
        return BACKENDS[backend](query, key, value, segments, how), None


def backend_of(name: str, device: torch.device, dtype: torch.dtype, *, dropout: float = 0.0) -> str:
    """Return the given backend; for `auto`, FlexAttention if a GPU has a kernel for it."""
    if name != AUTO:
        return name
    if device.type != "cuda" or dropout:
        return SEGMENTS
    return FLEX if dtype != torch.float32 or _shared_memory(device) >= FLOAT32_SHARED else SEGMENTS


@cache
def _shared_memory(device: torch.device) -> int:
    properties = torch.cuda.get_device_properties(device)
    # ROCm has only the second
    return int(
        getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    )


def require_backend(name: str, device: torch.device, *, dropout: bool = False) -> None:
    """Raise UsageError (T138) for an attention backend that is unknown or cannot run here."""
    place, known = f"attention: {name!a}", (AUTO, *BACKENDS)
    if name not in known:
        raise UsageError(
            "T138", place, "is not a known backend", f"write one of {', '.join(known)}"
        )
    if name == FLEX and (device.type == "cpu" or dropout):
        problem = "has no kernel for a CPU, and no dropout"
        raise UsageError("T138", place, problem, "write auto, or use a GPU without dropout")


def _window(
    mask: PackMask | Tensor | None, named: int | None, segments: Sequence[Segment]
) -> int | None:
    """Return the window of a layer: its mask decides, as elsewhere in transformers.

    Raises NotImplementedError if packs do not support the mask, or if a layer names a window that
    its mask does not have.
    """
    longest = max(segment.prompt + max(segment.completions) for segment in segments)
    if isinstance(mask, PackMask):
        return mask.window(longest)
    if mask is not None:
        message = "a mask that the model builds itself does not run on packs"
        raise NotImplementedError(message)
    if named is not None and named < longest:
        message = "a window that is not in the mask does not run on packs"
        raise NotImplementedError(message)
    return None


def _attend_segments(
    query_BHTD: Tensor,
    key_BGTD: Tensor,
    value_BGTD: Tensor,
    segments: Sequence[Segment],
    how: AttentionOptions,
) -> Tensor:
    """Return the attention of the pack, computed text by text, (1, T, H, D)."""
    # a prompt and its first completion are adjacent: one causal text, without a copy
    lengths = [n for s in segments for n in (s.prompt + s.completions[0], *s.completions[1:])]
    queries, keys, values = (
        iter(torch.split(states, lengths, 2)) for states in (query_BHTD, key_BGTD, value_BGTD)
    )
    outputs: list[Tensor] = []
    for segment in segments:
        query, key, value = next(queries), next(keys), next(values)
        outputs.append(_attend(query, key, value, how))
        before = key[:, :, : segment.prompt], value[:, :, : segment.prompt]
        for _ in segment.completions[1:]:
            query, key, value = next(queries), next(keys), next(values)
            key, value = torch.cat((before[0], key), 2), torch.cat((before[1], value), 2)
            outputs.append(_attend(query, key, value, how))
    return torch.cat([output.transpose(1, 2) for output in outputs], 1)


Backend = Callable[[Tensor, Tensor, Tensor, Sequence[Segment], AttentionOptions], Tensor]
BACKENDS: Mapping[str, Backend] = {SEGMENTS: _attend_segments, FLEX: attention_cuda.attend}
"""Attention of a pack by the names that a config gives: queries, keys and values, (1, heads, T, D),
the pack's segments and the layer's options to (1, T, H, D)."""


def _attend(query: Tensor, key: Tensor, value: Tensor, how: AttentionOptions) -> Tensor:
    """Return the causal attention of a text's last tokens over all of it, (1, H, queries, D)."""
    queries, keys = query.shape[2], key.shape[2]
    window = how.window if how.window is not None and how.window < keys else None
    if how.softcap is not None or how.sinks_H is not None:
        return _attend_explicitly(query, key, value, how._replace(window=window))
    whole = window is None and queries == keys
    bias = None if whole else causal_bias(queries, keys, window, query.dtype, query.device)
    if query.device.type == "cpu" and window is None and how.dropout == 0:
        scale = query.shape[-1] ** -0.5 if how.scaling is None else how.scaling
        return attend_causal(query, key, value, bias, scale)
    if query.is_cuda and query.dtype == torch.float32:  # its kernels know no groups of heads
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=bias,
        is_causal=whole,
        dropout_p=how.dropout,
        scale=how.scaling,
        enable_gqa=True,
    )


def _attend_explicitly(query: Tensor, key: Tensor, value: Tensor, how: AttentionOptions) -> Tensor:
    """Return `_attend` with soft caps (Gemma 2) or sinks (gpt-oss), which no fused kernel has.

    A sink is one more term in the sum of a softmax: a key that is seen, without a value.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scale = query.shape[-1] ** -0.5 if how.scaling is None else how.scaling
    scores = query @ key.transpose(2, 3) * scale
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    scores = scores + causal_bias(*scores.shape[2:], how.window, query.dtype, query.device)
    if how.sinks_H is not None:
        sinks_HQ1 = how.sinks_H.to(scores.dtype)[:, None, None].expand(*scores.shape[1:3], 1)
        scores = torch.cat((scores, sinks_HQ1[None]), -1)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights[..., : key.shape[2]], how.dropout, training=how.dropout > 0)
    return weights @ value


@lru_cache(maxsize=256)
def causal_bias(
    queries: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return 0 where a query sees a key, else −inf: (queries, keys), aligned at the lower right.

    Two queries over four keys with a window of three:

        0    0    0  −inf
     −inf    0    0    0
    """
    query = torch.arange(keys - queries, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill_(hidden, -math.inf)


AttentionInterface.register(NAME, attend_packs)
AttentionMaskInterface.register(NAME, read_mask)
