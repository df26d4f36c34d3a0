"""What was saved, read back by transformers or peft, gives the log-probs that the run ended with.

In float32 every token of a few pairs must agree. A model that is saved in fewer bits is compared
twice: its tensors with the rounded ones, bit by bit, and its log-probs with the weights as they
were before rounding. So a wrong structure is an error, and what rounding lost is a number.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo.data.packing import PromptWithCompletions
from dpo.data.pairs import Pairs
from dpo.data.sampler import permute
from dpo.errors import TrainingError
from dpo.model.float32 import in_float32
from dpo.model.policy import Logps, Policy, row_logps
from dpo.model.self_check import plain_logps
from dpo.model.spot_check import FARTHER
from dpo.precision import Precision, autocast

ROWS, SEEN = 4, 64
"""Pairs that are scored: those with the fewest tokens of a sample."""
TOLERANCE = 1e-4
"""Nats per token, in float32, times max(1, |log-prob|)."""

ROUNDING = 2.0**-8
"""Relative difference that rounding to bfloat16 explains."""
_REMEDY = "its files are kept next to it under a temporary name; report this with the model's name"


class Probe(NamedTuple):
    """A few pairs with the log-probs of their tokens under the policy at the end of a run."""

    rows: list[PromptWithCompletions]
    logps_n: Logps
    """In nats, of all completion tokens in order."""
    precision: Precision = "no"
    """Precision of these log-probs: of sharded weights it is that of training."""


def probe(policy: Policy, pairs: Pairs, *, precision: Precision = "no") -> Probe:
    """Score a few pairs; every process of a sharded run must call this."""
    sample = permute(np.arange(min(SEEN, len(pairs))), len(pairs), key="saved")
    pairs.shards.check(sample)
    rows = sample[np.argsort(pairs.sizes[sample], kind="stable")][:ROWS].tolist()
    was_training = policy.training
    policy.eval()
    with in_float32(policy.model) if precision == "no" else nullcontext():
        found, _ = row_logps(policy, pairs, rows, precision=precision)
    policy.train(was_training)
    logps = np.concatenate([side for row in found for side in row])
    return Probe([pairs[row] for row in rows], logps, precision)


def gaps(model: PreTrainedModel, wanted: Probe) -> Logps:
    """Return by how much a model's plain log-probs differ from a probe's, token by token."""
    gap: Logps = np.nan_to_num(np.abs(_plain(model, wanted) - wanted.logps_n), nan=np.inf)
    return gap


def rescored(model: PreTrainedModel, wanted: Probe) -> Probe:
    """Return the same pairs scored by another model."""
    return Probe(wanted.rows, _plain(model, wanted))


def _plain(model: PreTrainedModel, wanted: Probe, precision: Precision = "no") -> Logps:
    model.train(mode=False)
    with in_float32(model), autocast(model.device, precision):
        found: Logps = plain_logps(model, wanted.rows).cpu().numpy()
    return found


def require_equal(model: PreTrainedModel, wanted: Probe, place: str) -> None:
    """Raise TrainingError (T311) if a model is not the policy that the run ended with.

    Log-probs in bf16 or fp16 may be as far from float32, on average, as twice the rounding here.
    """
    gap, allowed = gaps(model, wanted), np.maximum(1.0, np.abs(wanted.logps_n)) * TOLERANCE
    if wanted.precision != "no":
        noise = np.abs(_plain(model, wanted, wanted.precision) - _plain(model, wanted))
        gap, allowed = (
            gap.mean(keepdims=True),
            FARTHER * np.maximum(noise.mean(keepdims=True), 1e-3),
        )
    worst = int((gap / allowed).argmax())
    if not gap[worst] <= allowed[worst]:
        problem = (
            f"is another model than the trained one: read back, a token of {len(wanted.rows)} pairs"
            f" has a log-prob that is off by {gap[worst]:.2g} nats"
        )
        raise TrainingError("T311", place, problem, _REMEDY)


@torch.no_grad()
def require_saved(
    saved: PreTrainedModel, weights: Mapping[str, Tensor], wanted: Probe, place: str
) -> str | None:
    """Check a model that was read back; return a notice of what its rounding lost, or None.

    `weights` is the state dict that was saved, before rounding. `saved` is changed to it.
    """
    lost = gaps(saved, wanted)
    own, is_rounded = saved.state_dict(), False
    for name, tensor in weights.items():
        mine, there = tensor.detach().to(own[name]) if name in own else tensor, own.get(name)
        if there is None or not torch.allclose(mine, there, rtol=ROUNDING, atol=1e-7):
            problem = f"has other values of {name} than the trained model, beyond rounding"
            raise TrainingError("T311", place, problem, _REMEDY)
        is_rounded |= not torch.equal(mine, there)
        there.copy_(mine)
    require_equal(saved, wanted, place)
    if not is_rounded:
        return None
    return (
        f"{place}: rounding to its dtype changes log-probs by {lost.mean():.2g} nats a token on"
        f" average, {lost.max():.2g} at most ({len(wanted.rows)} pairs)"
    )
