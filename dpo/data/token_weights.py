"""Token weights of a pair's completions, for losses that do not weigh all tokens equally.

With m the number of tokens of the shorter completion:

* LD-DPO (Eq. 8 to 10 of https://arxiv.org/abs/2409.06411): tokens after the first m have weight α.
* SamPO (Eq. 6 of https://arxiv.org/abs/2406.10957): m tokens count, drawn without replacement. The
  draw depends only on seed and pair, so it is the same for policy, reference and a resumed run.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpo.data.packing import Pack

SIDES = ("chosen", "rejected")
Weights = NDArray[np.float64]


class TokenWeights(NamedTuple):
    """Settings of LD-DPO or SamPO."""

    ld_alpha: float | None
    """α of LD-DPO; None for SamPO."""
    seed: int = 0

    def weights(self, pair_id: str, lengths: Sequence[int]) -> list[Weights]:
        """Return weights of chosen and rejected tokens that count, (chosen,) and (rejected,).

        >>> [some.tolist() for some in TokenWeights(ld_alpha=0.5).weights("", (4, 2))]
        [[1.0, 1.0, 0.5, 0.5], [1.0, 1.0]]
        """
        shared = min(lengths)
        if self.ld_alpha is not None:
            weights = [np.full(length, self.ld_alpha) for length in lengths]
            for some in weights:
                some[:shared] = 1
            return weights
        digest = hashlib.blake2b(f"{self.seed}/{pair_id}".encode(), digest_size=8).digest()
        draw = np.random.default_rng(int.from_bytes(digest))
        weights = [np.zeros(length) for length in lengths]
        for some in weights:
            some[draw.choice(len(some), shared, replace=False)] = 1
        return weights


def weigh(
    pack: Pack, token_logps_N: Tensor, pair_index_R2: Tensor, weights: Sequence[Sequence[Weights]]
) -> Tensor:
    """Return weighted log-probs of chosen and rejected of the R pairs of a pack, (R, 2)."""
    device = token_logps_N.device
    flat = [some for pair in weights for some in pair]
    lengths = torch.tensor([len(some) for some in flat], device=device)
    all_lengths = pack.lengths().long()
    first = (torch.cumsum(all_lengths, 0) - all_lengths)[pair_index_R2.flatten()]
    owner = torch.arange(len(flat), device=device).repeat_interleave(lengths)
    within = torch.arange(len(owner), device=device) - (lengths.cumsum(0) - lengths)[owner]
    logps = token_logps_N[pack.loss_mask_N > 0].double()[first[owner] + within]
    weighted = logps * torch.from_numpy(np.concatenate(flat)).to(device)
    sums = weighted.new_zeros(len(flat)).index_add(0, owner, weighted)
    return sums.reshape(-1, 2).to(token_logps_N.dtype)


def wpo_weight(pack: Pack, logps_N: Tensor, collisions_N: Tensor) -> Tensor:
    """Return WPO's weight of each completion of a pack, (completions,), without gradient.

    exp of the mean over its tokens of log p(token) − log Σ_v p(v)²: 1 where the tokens are as
    likely as the policy's own samples (https://arxiv.org/abs/2406.11827, section 3.2, sampled
    alignment).
    """
    return torch.exp(pack.sums(logps_N.detach() - collisions_N) / pack.lengths())


def weigh_reference(counting: TokenWeights, stored: pa.Table) -> NDArray[np.float32]:
    """Return the weighted sums of stored log-probs, (rows, 2); masks are columns of the table."""
    sides = [_counted(stored[f"{s}_mask"], stored[f"ref_{s}_token_logps"]) for s in SIDES]
    rows = []
    for pair_id, *both in zip(stored["pair_id"].to_pylist(), *sides, strict=True):
        weights = counting.weights(pair_id.hex(), [len(logps) for logps in both])
        rows.append([np.dot(w, logps) for w, logps in zip(weights, both, strict=True)])
    return np.array(rows, np.float32).reshape(-1, 2)


def _counted(masks: pa.ChunkedArray, logps: pa.ChunkedArray) -> list[NDArray[np.float64]]:
    """Return one side of a shard: log-probs of the tokens that count in each completion."""
    lists = logps.combine_chunks()
    offsets = lists.offsets.to_numpy()
    values = lists.values.to_numpy().astype(np.float64)
    found = np.split(values, offsets[1:-1]) if len(lists) else []
    if masks.null_count == len(masks):
        return found
    listed = masks.to_pylist()
    return [
        some if mask is None else some[np.array(mask, bool)]
        for some, mask in zip(found, listed, strict=True)
    ]
