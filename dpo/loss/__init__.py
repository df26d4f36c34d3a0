"""Preference losses: one pure function for each paper, from the log-probs of pairs to their losses.

Every function returns the loss of each pair, (B,), and leaves reduction, weights and devices to
its caller. A config chooses from the table `LOSSES`; a loss takes only the settings in its
signature. The first line of a loss's docstring is its entry in docs and model cards.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
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
"""Losses that support divergences other than the reverse KL."""
WITH_MARGINS = frozenset(loss.__name__ for loss in _WITH_MARGINS)
"""Losses that need the data's margins."""
COUPLED = frozenset(loss.__name__ for loss in (*_COUPLED, *_STATEFUL))
"""Losses that must see the whole step at once."""
STATEFUL = frozenset(loss.__name__ for loss in _STATEFUL)
"""Losses that also take running statistics of margins: their mean and deviation."""
RANKED = frozenset(loss.__name__ for loss in _RANKED)
"""Losses that must see all pairs of a group at once."""
REFERENCE_FREE = frozenset(loss.__name__ for loss in _FREE) | {"sft_tokens"}
"""Losses that do not use the reference."""

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
    "couples_pairs",
    "diverge",
    "find_loss",
    "settings",
]


@cache
def find_loss(name: str) -> Loss:
    """Return a loss: a shipped one, `module:function`, or one of the entry points `dpo.losses`.

    A loss takes `PairLogps` and keyword-only settings with defaults, and returns (B,). If its pairs
    depend on each other, it has an attribute `couples_pairs = True`. Raises ValueError.
    """
    if name in LOSSES:
        return LOSSES[name]
    for point in entry_points(group="dpo.losses", name=name):
        return _checked(name, point.load())
    module, _, function = name.partition(":")
    if not (module and function):
        near = get_close_matches(name, LOSSES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `dpo-train --list-losses`"
        message = f"{name!r} is not a loss; {hint}"
        raise ValueError(message)
    try:
        found = getattr(import_module(module), function, None)
    except Exception as error:  # a user's code may raise anything
        message = f"{name!r} cannot be imported ({type(error).__name__}: {error})"
        raise ValueError(message) from error
    return _checked(name, found)


def _checked(name: str, found: object) -> Loss:
    if not callable(found):
        message = f"{name!r} is not a function"
        raise ValueError(message)  # noqa: TRY004 - of a config
    for one in list(signature(found).parameters.values())[1:]:
        if one.kind is not Parameter.KEYWORD_ONLY or not isinstance(one.default, int | float):
            message = f"{name!r}: {one.name} is not a keyword-only number with a default"
            raise ValueError(message)
    return found


def couples_pairs(name: str) -> bool:
    """Return whether the loss of a pair depends on the other pairs of its step."""
    return name in COUPLED or bool(getattr(find_loss(name), "couples_pairs", False))


def settings(name: str) -> dict[str, float]:
    """Return the settings that a loss takes, with its own defaults.

    >>> settings("dpo_norm")
    {'beta': 5.0}
    """
    parameters = signature(find_loss(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
