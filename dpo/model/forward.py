"""Forward passes without gradients: rows of a split in, log-probs of their tokens out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dpo.data.packing import pack
from dpo.data.pairs import Pairs
from dpo.model.policy import Policy
from dpo.precision import Precision, autocast

Logps = NDArray[np.float32]


class RowLogps(NamedTuple):
    """Log-probs of one pair's tokens, in nats: (chosen length,) and (rejected length,)."""

    chosen: Logps
    rejected: Logps


@torch.no_grad()
def row_logps(
    policy: Policy, pairs: Pairs, rows: Sequence[int], *, precision: Precision
) -> tuple[list[RowLogps], Logps]:
    """Return the token log-probs of rows that run as one pack, and their sums, (rows, 2).

    A prompt or completion that several rows share is run once.
    """
    device, joined = policy.model.device, pairs.share_prompts(rows)
    batch = pack(joined.prompts).to(device)
    with autocast(device, precision):
        token_logps_N = policy(batch).logps_N
    lengths = np.bincount(batch.completion_id_N.cpu().numpy(), minlength=batch.num_completions)
    tokens = np.split(token_logps_N.cpu().numpy(), np.cumsum(lengths)[:-1])
    found = [RowLogps(tokens[chosen], tokens[rejected]) for chosen, rejected in joined.sides]
    return found, batch.sums(token_logps_N).cpu().numpy()[joined.sides]
