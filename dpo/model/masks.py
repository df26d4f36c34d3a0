"""Rule of a model's own attention mask, applied to the texts of a pack.

transformers builds a mask over a whole row and does not know of packs. Here the rule behind it is
evaluated at the positions of one text. A causal mask, with or without a window, runs on packs; any
other raises, and such a model runs its texts one by one.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers.masking_utils import causal_mask_function

Rule = Callable[..., Any]
"""Function of batch, head, query and key indices: true if the query sees the key."""

READ = 256
"""Maximum queries of a text at which a rule is evaluated."""


class PackMask:
    """Rule of a mask, evaluated when an attention layer needs it; shared by layers of one mask."""

    def __init__(self, rule: Rule, device: torch.device) -> None:
        self._rule, self._device = rule, device
        self._windows: dict[int, int | None] = {}

    def window(self, length: int) -> int | None:
        """Return the window for a text of this length, in keys; None if a query sees all.

        Raises NotImplementedError if the rule is neither causal nor a window.
        """
        if length not in self._windows:
            self._windows[length] = self._read(length)
        return self._windows[length]

    def _read(self, length: int) -> int | None:
        key_K = torch.arange(length, device=self._device)
        query_Q1 = torch.linspace(0, length - 1, min(length, READ), device=self._device)
        query_Q1 = query_Q1.round().long()[:, None]
        zero = torch.zeros((), dtype=torch.long, device=self._device)
        seen_QK = self._rule(zero, zero, query_Q1, key_K).expand(len(query_Q1), length)
        widest = int(seen_QK[-1].sum())
        if not torch.equal(seen_QK, (key_K <= query_Q1) & (key_K > query_Q1 - widest)):
            message = "a mask that is neither causal nor a sliding window does not run on packs"
            raise NotImplementedError(message)
        return None if widest == length else widest


def read_mask(
    *, mask_function: Rule, device: torch.device | str = "cpu", **_options: Any
) -> PackMask | None:
    """Return the mask for the pack attention, None if causal; transformers calls it."""
    if mask_function is causal_mask_function:
        return None
    return PackMask(mask_function, torch.device(device))
