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
from inspect import Parameter, isfunction, signature
from types import ModuleType

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


def _family(module: ModuleType) -> dict[str, Loss]:
    """Return the losses of a file, in its order: its own public functions of `logps`."""
    return {
        name: found
        for name, found in vars(module).items()
        if isfunction(found)
        and found.__module__ == module.__name__
        and next(iter(signature(found).parameters), None) == "logps"
        and not name.startswith("_")
    }


ON_MARGINS = _family(margin)
"""Losses that support divergences other than the reverse KL."""
WITH_MARGINS = _family(with_margins)
"""Losses that need the data's margins."""
STATEFUL = _family(beta_dpo)
"""Losses that also take running statistics of margins: their mean and deviation."""
COUPLED = _family(batch_coupled) | STATEFUL
"""Losses that must see the whole step at once."""
RANKED = _family(plackett_luce)
"""Losses that must see all pairs of a group at once."""
REFERENCE_FREE = {*_family(reference_free), "sft_tokens"}
"""Losses that do not use the reference."""
LOSSES: Mapping[str, Loss] = (
    ON_MARGINS | _family(per_side) | WITH_MARGINS | _family(reference_free) | COUPLED | RANKED
)

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
    "is_reference_free",
    "settings",
]


@cache
def find_loss(name: str) -> Loss:
    """Return a loss: a shipped one, `module:function`, or one of the entry points `dpo.losses`.

    A loss takes `PairLogps` and keyword-only settings with defaults, and returns (B,). If its pairs
    depend on each other, it has an attribute `couples_pairs = True`; if it does not use the
    reference, `reference_free = True`. Raises ValueError.
    """
    if name in LOSSES:
        return LOSSES[name]
    points = entry_points(group="dpo.losses", name=name)
    module, _, function = name.partition(":")
    if not (points or (module and function)):
        near = get_close_matches(name, LOSSES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `dpo-train --list-losses`"
        message = f"{name!r} is not a loss; {hint}"
        raise ValueError(message)
    try:
        found = points[name].load() if points else getattr(import_module(module), function, None)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
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


def is_reference_free(name: str) -> bool:
    """Return whether a loss does not use the reference; yours has `reference_free = True` then."""
    return name in REFERENCE_FREE or bool(getattr(find_loss(name), "reference_free", False))


def settings(name: str) -> dict[str, float]:
    """Return the settings that a loss takes, with its own defaults.

    >>> settings("dpo_norm")
    {'beta': 5.0}
    """
    parameters = signature(find_loss(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
