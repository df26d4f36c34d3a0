"""Direct Preference Optimization on precomputed reference log-probs.

`import dpo` is cheap: each name below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpo.config import TrainConfig
    from dpo.errors import DpoError
    from dpo.loss import LOSSES as losses  # noqa: N811
    from dpo.reference_pass import compute_reference as reference
    from dpo.training.loop import train

__all__ = ["DpoError", "TrainConfig", "losses", "reference", "train"]

_HOMES = {
    "DpoError": ("dpo.errors", "DpoError"),
    "TrainConfig": ("dpo.config", "TrainConfig"),
    "losses": ("dpo.loss", "LOSSES"),
    "reference": ("dpo.reference_pass", "compute_reference"),
    "train": ("dpo.training.loop", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'dpo' has no attribute {name!r}"
        raise AttributeError(message)
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
