"""What a model's own attention mask says of the texts of a pack.

transformers lays a mask out over a whole row, which knows nothing of packs. Here the rule behind it
is read instead, at the positions of one text: a mask that is causal, or causal with a window, runs
on packs; any other raises, and such a model runs its texts one by one.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers.masking_utils import causal_mask_function

Rule = Callable[..., Any]
"""From numbers of batch and head, and positions of query and key, to whether the key is seen."""

READ = 256
"""Queries of a text at which a rule is read, at most."""


class PackMask:
    """The rule of a mask, read when an attention layer meets it; layers with one mask share it."""

    def __init__(self, rule: Rule, device: torch.device) -> None:
        self._rule, self._device = rule, device
        self._windows: dict[int, int | None] = {}

    def window(self, length: int) -> int | None:
        """The last keys that a query of a text of this length sees; None where it sees all.

        Raises NotImplementedError where the rule is neither causal nor a window.
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
    """What transformers calls for a mask under the pack attention's name: None for a causal one."""
    if mask_function is causal_mask_function:
        return None
    return PackMask(mask_function, torch.device(device))
