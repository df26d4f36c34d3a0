"""Lengths of text at which a model's rotary frequencies change.

They depend on length under longrope and dynamic NTK. transformers chooses them by the longest text
of a row, so in a pack one long text would change all others; dynamic ones also keep the state of
the longest row so far. So texts share a row only if their lengths choose the same frequencies, and
frequencies are reset before each row.
https://arxiv.org/abs/2402.13753 (longrope).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

_NAMES_A_LENGTH = re.compile(
    r"^(?!.*pattern).*(window|chunk|top_?k|block_size|position|local|seq_len|n_ctx|index_)"
)


_CHOOSES_KEYS = re.compile(r"^(index|keep_window)")


class LengthLimit(NamedTuple):
    """Length of text, in tokens, beyond which frequencies change."""

    tokens: int
    grows: bool
    """True if each length beyond it has its own frequencies (dynamic NTK)."""

    def side(self, length: int) -> int:
        """Return a key for the length: texts with equal keys have equal frequencies."""
        return max(length, self.tokens) if self.grows else int(length > self.tokens)


def length_limits(model: nn.Module) -> tuple[LengthLimit, ...]:
    """Return the limits of all rotary embeddings of a model; none if length does not matter."""
    return tuple(sorted({limit for module in model.modules() for limit in _limits(module)}))


def start_afresh(model: nn.Module) -> None:
    """Reset dynamic frequencies to their state before any row."""
    for module in model.modules():
        for kind, prefix in _kinds(module):
            original: Any = getattr(module, f"{prefix}original_inv_freq", None)
            if "dynamic" in kind and original is not None:
                setattr(module, f"{prefix}inv_freq", original.clone())
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _limits(module: nn.Module) -> Iterator[LengthLimit]:
    for kind, prefix in _kinds(module):
        if "dynamic" in kind:
            yield LengthLimit(int(module.original_max_seq_len), grows=True)  # type: ignore[arg-type]
        elif kind == "longrope":
            parameters: Any = module.config.rope_parameters  # type: ignore[union-attr]
            parameters = parameters[prefix.removesuffix("_")] if prefix else parameters
            yield LengthLimit(int(parameters["original_max_position_embeddings"]), grows=False)


def _kinds(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the kind of frequencies and the prefix of their names for each type of layer."""
    kinds: Any = getattr(module, "rope_type", None)
    if isinstance(kinds, str):
        yield kinds, ""
    elif isinstance(kinds, dict):
        for layer_type, kind in kinds.items():
            yield str(kind), f"{layer_type}_"


def chooses_keys(config: Any) -> bool:
    """Return whether attention chooses some keys by a score, as its config names an indexer.

    Keys of equal score are chosen by their places among all keys of a row, padding included.
    """
    return any(_CHOOSES_KEYS.search(name) for name in config.get_text_config().to_dict())


def lengths_named(config: Any) -> list[int]:
    """Return all numbers in a config, also nested, that are named like lengths; ascending."""
    return sorted(set(_lengths(config.to_dict())))


def _lengths(value: Any, name: str = "") -> Iterator[int]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lengths(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _lengths(inner, name)
    elif type(value) is int and value > 1 and _NAMES_A_LENGTH.search(name):
        yield value
