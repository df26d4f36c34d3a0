"""Check before step 1 that stored log-probs agree with those that the model gives here.

Fingerprints cannot detect what a machine computes, so rows are recomputed. In float32 the worst
token decides. Under bf16 and fp16, and with weights in bfloat16, log-probs depend on the shape of a
batch, by an amount that varies with model and machine, so the bounds are measured. The rows also
run in float32, and stored log-probs may differ from that about as much as recomputed ones of the
same precision. Log-probs of other weights differ several times more at each token. Thousands of
tokens show this reliably; one step of few pairs would not. docs/decisions/0021 has the
measurements.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpo.data.pairs import Pairs
from dpo.data.reference_store import Reference
from dpo.data.sampler import permute
from dpo.errors import MismatchError
from dpo.model.float32 import in_float32, is_float32
from dpo.model.kernel_check import text_by_text
from dpo.model.policy import Policy, RowLogps, row_logps

SPOT_ROWS = 32
WORST_TOKEN = 1e-3
"""Nats, in float32."""
FIRST_LOSS = 1e-4
"""Maximum error of the first loss over max(1, |loss|), in float32."""
FARTHER = 2.0
"""Maximum distance of stored log-probs from float32, as a multiple of that of recomputed ones, on
average over all tokens of the rows."""
DEVIATIONS = 6.0
"""Standard errors of a mean over pairs: one correct reference in a million exceeds them, if the
pairs are independent (Student's t of 31 degrees: 1.2e-6)."""
_FEW = 8
"""Fewest pairs whose mean is checked."""
_FLOOR = 1e-3
"""Nats per token; a smaller difference under bf16 or fp16 always counts as rounding."""
_SIDES = ("chosen", "rejected", "margins")


class Spread(NamedTuple):
    """Recomputed minus stored log-probs of pairs: chosen, rejected and margins, each (3,)."""

    means: NDArray[np.float64]
    """Mean over the pairs, nats."""
    per_root_token: NDArray[np.float64]
    """Standard deviation of a pair over the square root of its tokens, nats: that measured here
    or, if larger, that of two roundings, each as far from float32 as here."""
    pairs: int

    def bounds(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Return how far a step's means may be from `means`, given its pairs' tokens, (3,).

        Both means have an error: that of the step and that of the recomputed pairs.
        """
        mean_tokens = float(np.mean(tokens))
        error = self.per_root_token * np.sqrt(mean_tokens * (1 / len(tokens) + 1 / self.pairs))
        bounds: NDArray[np.float64] = DEVIATIONS * error + _FLOOR
        return bounds


def spot_check(policy: Policy, pairs: Pairs, reference: Reference, split: str) -> Spread:
    """Recompute a sample of rows under the reference's model, and refuse log-probs that differ.

    Returns their differences, which bound those of the first step. Raises MismatchError (T209).
    """
    count = min(SPOT_ROWS, len(pairs))
    rows = np.sort(permute(np.arange(count), len(pairs), key="spot check")).tolist()
    precision = reference.manifest.mixed_precision
    rounds = precision != "no" or not is_float32(policy.model)
    pairs.shards.check(rows)
    stored = [RowLogps(*sides) for sides in reference.token_logps(split, rows)]
    again: list[RowLogps] = []
    exact: list[RowLogps] = []
    for start in range(0, count, 4):
        some = rows[start : start + 4]
        again += row_logps(policy, pairs, some, precision=precision)[0]
        if rounds:  # a GPU may have no kernel for float32
            with text_by_text(policy), in_float32(policy.model):
                exact += row_logps(policy, pairs, some, precision="no")[0]
    place = f"{reference.folder} {split}"
    if not rounds:
        _refuse_worst_token(place, pairs, rows, again, stored)
        return _spread(again, stored)
    _refuse_far_tokens(place, again, exact, stored)
    spread = _spread(again, stored)
    if count >= _FEW:
        _refuse_shifted_means(place, spread, [len(side) for row in stored for side in row])
    # a step's packs have other shapes than these rows, and may differ where these did not
    rounding = np.sqrt(2) * _spread(again, exact).per_root_token
    return spread._replace(per_root_token=np.maximum(spread.per_root_token, rounding))


def check_first_loss(loss: float, *, expected: float, draws: Callable[[], bool]) -> None:
    """Refuse a first loss other than the reference's, if the policy starts as it (float32).

    `draws` reports if two passes over the same pairs differ; it is called only after a mismatch.
    """
    if not abs(loss - expected) <= FIRST_LOSS * max(1.0, abs(expected)):
        problem = f"is {loss:.6f}, but a policy that equals its reference has {expected:.6f}"
        raise _first_step_error("the first loss", problem, draws=draws)


def check_first_margins(
    found: Mapping[str, float],
    spread: Spread,
    tokens: Sequence[int],
    *,
    draws: Callable[[], bool],
) -> None:
    """Refuse a first step that differs from its reference by more than rounding (bf16, fp16)."""
    means = np.array([found["logratios/chosen"], found["logratios/rejected"]])
    means = np.append(means, means[0] - means[1])
    for side, mean, seen, bound in zip(
        _SIDES, means, spread.means, spread.bounds(tokens), strict=True
    ):
        if not abs(mean - seen) <= bound:
            problem = (
                f"has {side} {mean:+.3f} nats from the reference on average over {len(tokens):,}"
                f" pairs, but rounding explains only {seen:+.3f} ± {bound:.3f}"
            )
            raise _first_step_error("the first step", problem, draws=draws)


def _first_step_error(place: str, problem: str, *, draws: Callable[[], bool]) -> MismatchError:
    """Return the error: noise in the model or another model, as the stored numbers are correct."""
    remedy = (
        "the stored log-probs agree with the model as it was loaded, so training runs another one: "
        "report this with the model's name; mixed_precision: no compares exactly"
    )
    if draws():
        problem += "; the model draws at random, though dropout is off: two passes differ"
        remedy = "set its noise rates to 0 in its config.json, or use another model"
    return MismatchError("T210", place, problem, remedy)


_OTHER_WEIGHTS = (
    "they come from other weights or from a machine that computes wrongly: run `dpo-ref` with "
    "this model under another --name and set reference.name to it"
)


def _refuse_worst_token(
    place: str,
    pairs: Pairs,
    rows: Sequence[int],
    again: Sequence[RowLogps],
    stored: Sequence[RowLogps],
) -> None:
    for row, mine, theirs in zip(rows, again, stored, strict=True):
        gap = float(np.abs(np.concatenate(mine) - np.concatenate(theirs)).max())
        if not gap <= WORST_TOKEN:
            problem = (
                f"row {row:,} ({pairs.pair_id(row)}) is off by {gap:.2g} nats at one token, but"
                f" float32 allows only {WORST_TOKEN:g}"
            )
            raise MismatchError("T209", place, problem, _OTHER_WEIGHTS)


def _refuse_far_tokens(
    place: str, again: Sequence[RowLogps], exact: Sequence[RowLogps], stored: Sequence[RowLogps]
) -> None:
    mine, truth, theirs = (_tokens(rows) for rows in (again, exact, stored))
    rounding = max(float(np.abs(mine - truth).mean()), _FLOOR)
    gap = float(np.abs(theirs - truth).mean())
    if not gap <= FARTHER * rounding:
        problem = (
            f"its log-probs are {gap:.3g} nats per token from this model's in float32, on average"
            f" over {len(stored):,} pairs, but rounding explains only {rounding:.3g}"
        )
        raise MismatchError("T209", place, problem, _OTHER_WEIGHTS)


def _refuse_shifted_means(place: str, spread: Spread, tokens: Sequence[int]) -> None:
    error = spread.per_root_token * np.sqrt(np.sum(tokens) / spread.pairs / spread.pairs)
    for side, mean, bound in zip(_SIDES, spread.means, DEVIATIONS * error + _FLOOR, strict=True):
        if not abs(mean) <= bound:
            problem = (
                f"its {side} are off by {-mean:+.3f} nats on average over {spread.pairs:,} pairs,"
                f" but rounding explains only ± {bound:.3f}"
            )
            raise MismatchError("T209", place, problem, _OTHER_WEIGHTS)


def _spread(again: Sequence[RowLogps], stored: Sequence[RowLogps]) -> Spread:
    both = zip(again, stored, strict=True)
    gaps_of = [[a - b for a, b in zip(mine, theirs, strict=True)] for mine, theirs in both]
    sides = np.array([[float(gap.sum(dtype=np.float64)) for gap in row] for row in gaps_of])
    sides = sides.reshape(-1, 2)
    gaps = np.column_stack([sides, sides[:, 0] - sides[:, 1]])
    tokens = np.array([sum(map(len, row)) for row in stored], np.float64)
    means = gaps.mean(0)
    spread = np.sqrt(((gaps - means) ** 2 / tokens[:, None]).sum(0) / max(1, len(gaps) - 1))
    return Spread(means, spread, len(gaps))


def _tokens(rows: Sequence[RowLogps]) -> NDArray[np.float64]:
    return np.concatenate([side for row in rows for side in row]).astype(np.float64)
