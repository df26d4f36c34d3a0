"""How often each code was met, and where first: counts that parts bring and the whole adds up."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import polars as pl
import pyarrow as pa

EXAMPLES = 5


class Location(NamedTuple):
    """Where a code was met, and what was found there."""

    source: str
    line: int
    message: str
    offset: int = -1
    """Of the row's first byte in the decompressed file; -1 where it has none."""


class CodeCount(NamedTuple):
    """One code at one level."""

    num: int
    first: tuple[Location, ...]


Level = Literal["E", "W", "I"]
Findings = dict[Level, dict[str, CodeCount]]
"""By level (E: refused, W: reported, I: counted alone), then by code."""


def count_rows(rows: pa.Table, examples: int = EXAMPLES) -> dict[str, CodeCount]:
    """Rows of REJECTED by their codes."""
    frame = pl.DataFrame({name: pl.Series(rows[name]) for name in ("code", *Location._fields)})
    groups = frame.group_by("code", maintain_order=True)
    found = {str(code): met.select(Location._fields) for (code,), met in groups}
    return {
        code: CodeCount(len(met), tuple(map(Location._make, met.head(examples).iter_rows())))
        for code, met in sorted(found.items())
    }


def merge_counts(
    parts: Iterable[Mapping[str, CodeCount]], examples: int = EXAMPLES
) -> dict[str, CodeCount]:
    """The codes of several parts, which are in the order of the inputs."""
    total: dict[str, CodeCount] = {}
    for part in parts:
        for code, met in part.items():
            before = total.get(code, CodeCount(0, ()))
            total[code] = CodeCount(before.num + met.num, (before.first + met.first)[:examples])
    return dict(sorted(total.items()))


def counts(met: Mapping[str, CodeCount]) -> dict[str, int]:
    return {code: found.num for code, found in met.items()}
