"""Pairs to packs: one prompt, its completions after it, no padding.

    tokens      P P P P C C C R R   P P C R R R
    positions   0 1 2 3 4 5 6 4 5   0 1 2 2 3 4
                └── a pair ─────┘   └─ another ─┘

Each completion continues its prompt, so its positions start where the prompt's end. K completions
of one prompt are `P C1 … CK`; a pair has two. The token before a completion's first is the prompt's
last, so one hidden state predicts the first token of every completion of its prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int32]


class PromptWithCompletions(NamedTuple):
    """A prompt and its completions, chosen first, with the loss mask of each completion."""

    prompt: Ids
    completions: tuple[Ids, ...]
    masks: tuple[NDArray[np.bool_] | None, ...]

    @property
    def num_tokens(self) -> int:
        """Return the tokens that the model runs over: the prompt once, each completion once."""
        return len(self.prompt) + sum(map(len, self.completions))


class Segment(NamedTuple):
    """Lengths of one prompt and its completions inside a pack, in tokens."""

    prompt: int
    completions: tuple[int, ...]


@dataclass(frozen=True)
class Pack:
    """A row of T tokens that contains whole prompts with their completions.

    N counts completion tokens; those with `completion_id_N == k` belong to completion k.
    """

    input_ids_T: Tensor
    position_ids_T: Tensor
    segments: tuple[Segment, ...]
    logit_index_N: Tensor
    """Index in the row of the hidden state that predicts each completion token."""
    targets_N: Tensor
    completion_id_N: Tensor
    loss_mask_N: Tensor
    """1 at tokens that count in their completion's log-prob, 0 in turns of others; float32."""

    @property
    def num_completions(self) -> int:
        return sum(len(segment.completions) for segment in self.segments)

    def to(self, device: torch.device) -> "Pack":
        """Return the same pack with its tensors on a device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Pack(segments=self.segments, **moved)

    def sums(self, token_logps_N: Tensor) -> Tensor:
        """Return each completion's log-prob, (num_completions,): the sum of tokens that count."""
        zeros = token_logps_N.new_zeros(self.num_completions)
        return zeros.index_add(0, self.completion_id_N, token_logps_N * self.loss_mask_N)

    def lengths(self) -> Tensor:
        """Return the number of tokens that count per completion, (num_completions,), float32."""
        return self.loss_mask_N.new_zeros(self.num_completions).index_add(
            0, self.completion_id_N, self.loss_mask_N
        )


def pack(rows: Sequence[PromptWithCompletions]) -> Pack:
    """Return one pack of the given prompts, in the given order."""
    ids: list[Ids] = []
    positions: list[NDArray[np.int64]] = []
    predicts: list[NDArray[np.int64]] = []
    masks: list[NDArray[np.bool_]] = []
    start = 0
    for row in rows:
        end_of_prompt = start + len(row.prompt)
        ids.append(row.prompt)
        positions.append(np.arange(len(row.prompt)))
        start = end_of_prompt
        for completion, mask in zip(row.completions, row.masks, strict=True):
            length = len(completion)
            ids.append(completion)
            positions.append(np.arange(len(row.prompt), len(row.prompt) + length))
            places = np.arange(start - 1, start + length - 1)
            places[0] = end_of_prompt - 1
            predicts.append(places)
            masks.append(np.ones(length, dtype=bool) if mask is None else mask)
            start += length
    completions = [completion for row in rows for completion in row.completions]
    lengths = [len(completion) for completion in completions]
    return Pack(
        input_ids_T=torch.from_numpy(np.concatenate(ids).astype(np.int64)),
        position_ids_T=torch.from_numpy(np.concatenate(positions)),
        segments=tuple(Segment(len(row.prompt), tuple(map(len, row.completions))) for row in rows),
        logit_index_N=torch.from_numpy(np.concatenate(predicts)),
        targets_N=torch.from_numpy(np.concatenate(completions).astype(np.int64)),
        completion_id_N=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        loss_mask_N=torch.from_numpy(np.concatenate(masks).astype(np.float32)),
    )


def bin_pack(sizes: Sequence[int], *, budget: int, ranks: int = 1) -> list[list[list[int]]]:
    """Assign rows to packs and packs to ranks: indices by rank and pack.

    First fit decreasing under a budget of tokens; a larger row is its own pack. Packs go, heaviest
    first, to the rank with the fewest tokens and with room for another pack. A rank may get fewer
    packs than others; the caller runs empty ones instead.

    >>> bin_pack([5, 4, 3, 2], budget=7)
    [[[0, 3], [1, 2]]]
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(sizes)), key=lambda row: (-sizes[row], row)):
        place = next((i for i, free in enumerate(room) if sizes[row] <= free), None)
        if place is None:
            packs.append([row])
            room.append(budget - sizes[row])
        else:
            packs[place].append(row)
            room[place] -= sizes[row]
    shares: list[list[list[int]]] = [[] for _ in range(ranks)]
    most = -(-len(packs) // ranks)
    loads = [0] * ranks
    for rows in sorted(packs, key=lambda rows: -sum(sizes[row] for row in rows)):
        rank = min((r for r in range(ranks) if len(shares[r]) < most), key=lambda r: (loads[r], r))
        shares[rank].append(rows)
        loads[rank] += sum(sizes[row] for row in rows)
    return shares
