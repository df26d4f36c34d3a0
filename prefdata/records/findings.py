"""Counts and first locations of each code, per chunk and merged over chunks."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import polars as pl
import pyarrow as pa

EXAMPLES = 5


class Location(NamedTuple):
    """Location of a finding, and its message."""

    source: str
    line: int
    message: str
    offset: int = -1
    """Offset of the row's first byte in the decompressed file; -1 if it has none."""
    element: int | None = None
    """Number of the element, if the file is a JSON array; `line` is the line on which it begins."""

    def __str__(self) -> str:
        element = f" (element {self.element:,})" if self.element is not None else ""
        return f"{self.source}:{self.line}{element}"


class CodeCount(NamedTuple):
    """Count and first locations of one code at one level."""

    num: int
    first: tuple[Location, ...]


Level = Literal["E", "W", "I"]
Findings = dict[Level, dict[str, CodeCount]]
"""Counts by level (E: refused, W: reported, I: only counted), then by code."""


def count_rows(rows: pa.Table, examples: int = EXAMPLES) -> dict[str, CodeCount]:
    """Count the rows of REJECTED by code."""
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
    """Merge the counts of several chunks, which are in the order of the inputs."""
    total: dict[str, CodeCount] = {}
    for part in parts:
        for code, met in part.items():
            before = total.get(code, CodeCount(0, ()))
            total[code] = CodeCount(before.num + met.num, (before.first + met.first)[:examples])
    return dict(sorted(total.items()))


def counts(met: Mapping[str, CodeCount]) -> dict[str, int]:
    return {code: found.num for code, found in met.items()}
