"""Limits on a build's inputs, and the pairing of ranked completions.

Both models are parts of a build's config; their docstrings become schema descriptions.
"""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from prefdata.errors import UsageError

MIB = 2**20
BOM = b"\xef\xbb\xbf"
RAW_BYTES_KEPT = 4096  # of a row that is not read


class Limits(BaseModel):
    """Limits that protect the machine from a hostile or damaged file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_line_bytes: PositiveInt = 16 * MIB
    """Maximum length of a line, array element or CSV record; longer ones are refused (R212)."""
    max_depth: PositiveInt = 64
    """Maximum nesting depth of JSON in one row (R208)."""
    max_array_bytes: PositiveInt = 1024 * MIB
    """Maximum decompressed size of a file that is one JSON array (E105)."""
    max_output_bytes: PositiveInt = 256 * 1024 * MIB
    """Maximum decompressed size of a compressed, Parquet or Arrow file (E113)."""
    max_ratio: PositiveInt = 200
    """Maximum ratio of decompressed to compressed bytes, after `ratio_after_bytes` (E113)."""
    ratio_after_bytes: NonNegativeInt = 64 * MIB
    """Decompressed bytes before which the ratio is not checked."""
    max_completions: PositiveInt = 256
    """Maximum number of completions in one row; `all` makes n(n-1)/2 pairs of them (R212)."""
    allow_nul: bool = False
    """Keep rows whose text contains U+0000 instead of refusing them (R204)."""


class Pairing(BaseModel):
    """Pairing of one prompt's completions; equal ranks form no pair unless `ties` is `keep`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    strategy: Literal["best_vs_worst", "adjacent", "all", "best_vs_random"] = "best_vs_worst"
    """`best_vs_worst`: one pair. `adjacent`: each with the next worse. `all`: each with every
    worse one. `best_vs_random`: the best with a random worse one."""
    seed: NonNegativeInt = 0
    """Random seed of `best_vs_random`; the other strategies do not use it."""
    ties: Literal["reject", "keep"] = "reject"
    """Pairs without a preference: `reject` drops them (PD303); `keep` emits them with equal ranks
    and margin 0, the first completion as chosen. Only margin losses use that margin; others would
    train on an arbitrary order."""


class Budget(NamedTuple):
    """A file's size and the limits on its decompressed size, against decompression bombs."""

    name: str
    file_bytes: int
    limits: Limits

    def require(self, num_bytes: int, what: str) -> None:
        """Raise E113 if `what` would take more than the limits, absolute or by ratio."""
        self.require_within(num_bytes, f"{what} would take {num_bytes:,} bytes or more")

    def require_within(self, num_bytes: int, problem: str) -> None:
        """Raise E113 with this problem if `num_bytes` are over the limits."""
        limits = self.limits
        ratio = num_bytes / max(self.file_bytes, 1)
        if num_bytes > limits.max_output_bytes or (
            num_bytes > limits.ratio_after_bytes and ratio > limits.max_ratio
        ):
            problem = f"{problem} ({ratio:,.0f} to 1)"
            raise UsageError("E113", self.name, problem, "raise limits.max_ratio if intended")
