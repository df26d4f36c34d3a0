"""Attention over a pack in one kernel: FlexAttention, https://arxiv.org/abs/2412.05496, for GPUs.

Text by text, as on a CPU, would launch hundreds of small kernels per layer. Here each token sees
two runs of keys, one of its prompt and one of its own text up to itself, so four numbers per token
are the whole mask, with a window or without:

    row           0 1 2 3 4 5 6 7 8 9
    tokens        P P P P C C C R R R
    query 8 sees  0 1 2 3       7 8        prompt 0 to 4, own 7 to 8
    window of 4       2 3       7 8        prompt 2 to 4, own 7 to 8

The kernel computes blocks of 128 by 128 tokens. It skips those in which no query sees a key, and
reads the mask only in those where some do not. Packs are padded to whole blocks, at least two, as
torch compiles a kernel anew for a dimension of one.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, _dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from dpo.data.packing import Segment
from dpo.errors import UsageError, first_line

BLOCK = 128
"""Tokens on a side of a block."""
RECOMPILES = 64
"""Maximum kernels per process: one per dtype, head size, soft cap, with and without gradients."""
KEPT = 4
"""Masks that are kept: those of the layers of one pass, with a window and without."""
MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class AttentionOptions(NamedTuple):
    """Options that a layer passes to its attention."""

    scaling: float | None
    dropout: float
    window: int | None
    softcap: float | None
    sinks_H: Tensor | None = None
    """Logits of a key without a value that every query sees, one per head (gpt-oss)."""


class KeyRuns(NamedTuple):
    """Keys that each query of a padded pack sees, in row indices, each (T,)."""

    own_from: NDArray[np.int64]
    """First key of its own text; the last is the query itself."""
    prompt_from: NDArray[np.int64]
    prompt_to: NDArray[np.int64]
    """Keys of its prompt; none if equal."""


def attend(
    query_BHTD: Tensor,
    key_BGTD: Tensor,
    value_BGTD: Tensor,
    segments: Sequence[Segment],
    how: AttentionOptions,
) -> Tensor:
    """Return the attention of the whole pack, (B, T, H, D); the kernel has no dropout.

    Raises UsageError: T113 if more than `RECOMPILES` kernels would be compiled, T115 if one cannot
    be compiled, as when a small GPU has too little shared memory for float32.
    """
    device, tokens = query_BHTD.device, query_BHTD.shape[2]
    mask = block_mask(tuple(segments), how.window, device)
    padding = mask.seq_lengths[0] - tokens
    query, key, value = (
        F.pad(states, (0, 0, 0, padding)) if padding else states
        for states in (query_BHTD, key_BGTD, value_BGTD)
    )
    numbers = tuple(None if n is None else repr(n) for n in (how.scaling, how.softcap))
    try:
        output: Tensor = _compiled(device.type)(query, key, value, mask, how.sinks_H, numbers)
    except FailOnRecompileLimitHit as error:
        problem = f"its kernel was compiled more than {RECOMPILES} times in this process"
        remedy = "use attention segments, and report it with the model's name"
        raise UsageError("T113", "attention: flex", problem, remedy) from error
    except TorchDynamoException as error:
        problem = f"has no kernel for this model on {device.type} ({first_line(error)})"
        remedy = "use attention segments; in float32, bf16 may fit where it does not"
        raise UsageError("T115", "attention: flex", problem, remedy) from error
    return output[:, :, :tokens].transpose(1, 2)


def _attend_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    sinks_H: Tensor | None,
    numbers: tuple[str | None, str | None],
) -> Tensor:
    """Return attention by blocks, (B, H, T, D); `numbers` are scaling and soft cap.

    They are text, which torch takes as constants. Of floats it makes variables, and a kernel with
    one has no gradient. A sink adds exp(sink) to the sum of a softmax, which is exp(lse) without.
    """
    scaling, softcap = numbers
    cap = math.inf if softcap is None else float(softcap)

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    options: dict[str, Any] = {
        "score_mod": None if softcap is None else capped,
        "block_mask": mask,
        "scale": None if scaling is None else float(scaling),
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    if sinks_H is not None:
        options["return_aux"] = AuxRequest(lse=True)
    found = flex_attention(query, key, value, **options)
    output: Tensor = found if sinks_H is None else found[0]
    # known only here, as shapes are one symbol from now on: the kernel then checks no bounds
    torch._check(output.shape[2] % BLOCK == 0)  # type: ignore[no-untyped-call]
    if sinks_H is None:
        return output
    share = torch.sigmoid(found[1].lse - sinks_H.float()[:, None])
    return output * share[..., None].to(output.dtype)


@cache
def _compiled(device_type: str) -> Any:
    """Return the kernel for a device; a CPU, which has none, runs its operations one by one."""
    _dynamo.config.recompile_limit = max(_dynamo.config.recompile_limit, RECOMPILES)
    backend = "eager" if device_type == "cpu" else "inductor"
    # fullgraph: reaching the limit is an error, as attention without a kernel needs T² memory
    return torch.compile(_attend_blocks, fullgraph=True, dynamic=True, backend=backend)


@lru_cache(maxsize=KEPT)
def block_mask(
    segments: tuple[Segment, ...], window: int | None, device: torch.device
) -> BlockMask:
    """Return the mask of a padded pack: a token sees its prompt and its own text up to itself."""
    runs = key_runs(segments, window)
    seen = _seen_pairs(runs)
    partial, full = (seen > 0) & (seen < BLOCK**2), seen == BLOCK**2
    # `BlockMask.from_kv_blocks` would give the same: its transposed tables take 30 times as long
    by_query = _ordered(partial, device), _ordered(full, device)
    by_key = _ordered(partial.T, device), _ordered(full.T, device)
    return BlockMask(
        (len(runs.own_from), len(runs.own_from)),
        *by_query[0],
        *by_query[1],
        *by_key[0],
        *by_key[1],
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=mask_function(runs, device),
    )


def key_runs(segments: Sequence[Segment], window: int | None) -> KeyRuns:
    """Return the keys that each query sees; a padding token sees itself."""
    lengths = [n for segment in segments for n in (segment.prompt, *segment.completions)]
    prompts = [n for s in segments for n in (0, *[s.prompt] * len(s.completions))]
    counts = np.array([1 + len(segment.completions) for segment in segments])
    ends = np.cumsum(lengths)
    first_of = np.repeat(np.cumsum(counts) - counts, counts)  # index of each text's prompt

    own = np.repeat(ends - lengths, lengths)  # (T,): the start of each token's text
    prompt_to = np.repeat(np.where(prompts, ends[first_of], 0), lengths)
    prompt_from = prompt_to - np.repeat(prompts, lengths)
    place = np.arange(len(own))
    if window is not None:
        prompt_from = np.clip(prompt_to + (place - own) - window + 1, prompt_from, prompt_to)
        own = np.maximum(own, place - window + 1)
    padded = max(2, -(-len(own) // BLOCK)) * BLOCK
    padding = np.arange(len(own), padded)
    zeros = np.zeros_like(padding)
    return KeyRuns(
        np.append(own, padding), np.append(prompt_from, zeros), np.append(prompt_to, zeros)
    )


def _seen_pairs(runs: KeyRuns) -> NDArray[np.float64]:
    """Return the pairs of a query and a key that it sees by blocks, (blocks, blocks).

    A run of keys is the difference of two counts from key 0, to its end and to its start: a count
    to key 300 is 128 in blocks 0 and 1, and 44 in block 2.
    """
    blocks = len(runs.own_from) // BLOCK
    place = np.arange(len(runs.own_from))
    column, rest = np.divmod([place + 1, runs.own_from, runs.prompt_to, runs.prompt_from], BLOCK)
    cell = (place // BLOCK * (blocks + 1) + column).ravel()
    sign = np.repeat([1.0, -1.0, 1.0, -1.0], len(place))
    shape, cells = (blocks, blocks + 1), blocks * (blocks + 1)
    counts = np.bincount(cell, sign, cells).reshape(shape)
    seen = np.bincount(cell, sign * rest.ravel(), cells).reshape(shape)
    seen += BLOCK * (counts.sum(1, keepdims=True) - counts.cumsum(1))
    return np.asarray(seen[:, :blocks], np.float64)


def _ordered(blocks: NDArray[np.bool_], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the number of true columns by row, and all columns, true ones first: int32."""
    counts = torch.from_numpy(blocks.sum(1, dtype=np.int32))
    columns = torch.from_numpy(np.argsort(~blocks, axis=1, kind="stable").astype(np.int32))
    return counts[None, None].to(device), columns[None, None].to(device)


def mask_function(runs: KeyRuns, device: torch.device) -> MaskFunction:
    """Return the mask as a function of query and key indices, one for every kind of layer."""
    own_from, prompt_from, prompt_to = (
        torch.from_numpy(run.astype(np.int32)).to(device) for run in runs
    )

    def mask(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (key >= own_from[query]) & (key <= query)
        return own | ((key >= prompt_from[query]) & (key < prompt_to[query]))

    return mask
