"""LD-DPO: tokens beyond the length that both completions of a pair have count for less.

A completion of n tokens that count, beside one of m, has the log-prob of its first min(n, m) tokens
and α times that of the others: Eq. 8 to 10 of https://arxiv.org/abs/2409.06411. α = 1 is DPO.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpo.packing import Pack

SIDES = ("chosen", "rejected")


def lighten(pack: Pack, token_logps_N: Tensor, sides_R2: Tensor, *, alpha: float) -> Tensor:
    """Log-probs of chosen and rejected of the pairs of a pack, (R, 2)."""
    lengths = pack.lengths().long()
    running = torch.cumsum(token_logps_N[pack.counts_N > 0].double(), 0)
    running = torch.cat((running.new_zeros(1), running))
    first = (torch.cumsum(lengths, 0) - lengths)[sides_R2]
    ends, shared = first + lengths[sides_R2], lengths[sides_R2].amin(1, keepdim=True)
    whole, common = running[ends] - running[first], running[first + shared] - running[first]
    return (common + alpha * (whole - common)).to(token_logps_N.dtype)


def lighten_reference(
    tokens: Sequence[pa.Table], reference: Sequence[pa.Table], *, alpha: float
) -> NDArray[np.float32]:
    """The same of stored log-probs, beside the token shards that they are of, (rows, 2)."""
    parts = [np.zeros((0, 2), np.float32)]
    for shard, stored in zip(tokens, reference, strict=True):
        sides = [_Counted(shard[f"{s}_mask"], stored[f"ref_{s}_token_logps"]) for s in SIDES]
        shared = np.minimum(*(side.lengths for side in sides))
        sums = []
        for side in sides:
            whole, common = side.sums(side.lengths), side.sums(shared)
            sums.append(common + alpha * (whole - common))
        parts.append(np.stack(sums, 1).astype(np.float32))
    return np.concatenate(parts)


class _Counted:
    """One side of a shard: the tokens of each completion that count, and running sums of them."""

    def __init__(self, masks: pa.ChunkedArray, logps: pa.ChunkedArray) -> None:
        lists = pa.concat_arrays(logps.chunks) if logps.num_chunks != 1 else logps.chunk(0)
        offsets = lists.offsets.to_numpy()
        values = lists.values.to_numpy().astype(np.float64)
        counts = np.ones(len(values), np.int64)
        if masks.null_count < len(masks):
            for row, mask in enumerate(masks.to_pylist()):
                if mask is not None:
                    counts[offsets[row] : offsets[row + 1]] = mask
        self._starts = offsets[:-1]
        self._seen = np.concatenate([[0], np.cumsum(counts)])
        self._running = np.concatenate([[0.0], np.cumsum(values * counts)])
        self.lengths = self._seen[offsets[1:]] - self._seen[offsets[:-1]]

    def sums(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of the first so many tokens of each completion that count."""
        ends = np.searchsorted(self._seen, self._seen[self._starts] + lengths)
        ends = np.maximum(ends, self._starts)
        return np.asarray(self._running[ends] - self._running[self._starts])
