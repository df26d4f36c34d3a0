"""What a build allows its inputs to be, and how ranked completions become pairs.

Both models are parts of a build's config, so their docstrings are what the schema says of them.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

MIB = 2**20


class Limits(BaseModel):
    """Bounds that keep a hostile or damaged file from taking the machine down."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_line_bytes: PositiveInt = 16 * MIB
    """Longest line, array element or CSV record; a longer one is refused unread (R212)."""
    max_depth: PositiveInt = 64
    """Deepest nesting of JSON in one row (R208)."""
    max_array_bytes: PositiveInt = 1024 * MIB
    """Largest file that is one JSON array, unpacked (E105)."""
    max_output_bytes: PositiveInt = 256 * 1024 * MIB
    """Most that one packed file, or a Parquet or Arrow file, may unpack to (E113)."""
    max_ratio: PositiveInt = 200
    """Most bytes that one compressed byte may give, once `ratio_after_bytes` are out (E113)."""
    ratio_after_bytes: NonNegativeInt = 64 * MIB
    """Output before which the ratio is not looked at."""
    max_completions: PositiveInt = 256
    """Most completions in one row, since `all` makes n(n-1)/2 pairs of them (R212)."""
    allow_nul: bool = False
    """Keep rows whose text holds U+0000 instead of refusing them (R204)."""


class Pairing(BaseModel):
    """How the completions of one prompt become pairs; equal ranks form none unless asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    strategy: Literal["best_vs_worst", "adjacent", "all", "best_vs_random"] = "best_vs_worst"
    """`best_vs_worst`: one pair. `adjacent`: each with the next worse. `all`: each with every
    worse one. `best_vs_random`: the best with a seeded choice among the worse."""
    seed: NonNegativeInt = 0
    """Of `best_vs_random`; the other strategies draw nothing."""
    ties: Literal["reject", "keep"] = "reject"
    """What neither side of which is preferred: `reject` sets it aside (PD303), `keep` makes a pair
    of it with equal ranks and margin 0, the first one chosen. No loss here knows ties: a margin
    loss takes the 0, the others would learn an order that nobody stated."""
