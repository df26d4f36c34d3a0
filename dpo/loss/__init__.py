"""Preference losses: one pure function for each paper, from the log-probs of pairs to their losses.

Every function returns the loss of each pair, (B,), and leaves reduction, weights and devices to
its caller. `LOSSES` is the table that a config chooses from; a loss takes what its signature
names and nothing else.
"""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature

from torch import Tensor

from dpo.loss import (
    batch_coupled,
    beta_dpo,
    margin,
    per_side,
    plackett_luce,
    reference_free,
    with_margins,
)
from dpo.loss.pair_logps import DIVERGENCES, PairLogps, diverge

Loss = Callable[..., Tensor]

_ON_MARGINS: tuple[Loss, ...] = (
    margin.dpo,
    margin.cdpo,
    margin.robust,
    margin.ipo,
    margin.ipo_norm,
    margin.hinge,
    margin.dpo_norm,
    margin.exo_pair,
    margin.discopop,
)
_WITH_MARGINS: tuple[Loss, ...] = (
    with_margins.dpo_margin,
    with_margins.odpo,
    with_margins.rpo_square,
    with_margins.rpo_backward_kl,
    with_margins.rpo_forward_kl,
)
_COUPLED: tuple[Loss, ...] = (
    batch_coupled.sft_tokens,
    batch_coupled.kto_pair,
    batch_coupled.aot,
    batch_coupled.aot_unpaired,
    batch_coupled.dr_dpo,
)
_FREE: tuple[Loss, ...] = (
    reference_free.sft,
    reference_free.sft_norm,
    reference_free.unlikelihood,
    reference_free.simpo,
    reference_free.alphapo,
    reference_free.orpo,
    reference_free.cpo,
    reference_free.slic,
)
_RANKED: tuple[Loss, ...] = (plackett_luce.plackett_luce,)
_STATEFUL: tuple[Loss, ...] = (beta_dpo.beta_dpo,)
_OTHERS: tuple[Loss, ...] = (
    margin.r_dpo,
    margin.dpop,
    per_side.sppo_hard,
    per_side.nca_pair,
    per_side.bco_pair,
    per_side.apo_zero,
    per_side.apo_down,
    per_side.cal_dpo,
)

LOSSES: Mapping[str, Loss] = {
    loss.__name__: loss
    for loss in (*_ON_MARGINS, *_OTHERS, *_WITH_MARGINS, *_FREE, *_COUPLED, *_STATEFUL, *_RANKED)
}
ON_MARGINS = frozenset(loss.__name__ for loss in _ON_MARGINS)
"""Losses that may have another divergence than the reverse KL."""
WITH_MARGINS = frozenset(loss.__name__ for loss in _WITH_MARGINS)
"""Losses that need the data's margins."""
COUPLED = frozenset(loss.__name__ for loss in (*_COUPLED, *_STATEFUL))
"""Losses that must see the whole step at once."""
STATEFUL = frozenset(loss.__name__ for loss in _STATEFUL)
"""Losses that take the moving mean and deviation of margins beside the pairs."""
RANKED = frozenset(loss.__name__ for loss in _RANKED)
"""Losses that must see all pairs of a group at once."""
REFERENCE_FREE = frozenset(loss.__name__ for loss in _FREE) | {"sft_tokens"}
"""Losses that do not look at the reference."""

__all__ = [
    "COUPLED",
    "DIVERGENCES",
    "LOSSES",
    "ON_MARGINS",
    "RANKED",
    "REFERENCE_FREE",
    "STATEFUL",
    "WITH_MARGINS",
    "Loss",
    "PairLogps",
    "diverge",
    "settings",
]


def settings(name: str) -> dict[str, float]:
    """The settings that a loss takes, with its own defaults.

    >>> settings("dpo_norm")
    {'beta': 5.0}
    """
    parameters = signature(LOSSES[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
