"""Findings of the checks of a whole set."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from prefdata.check.catalog import Severity, catalog
from prefdata.records.findings import EXAMPLES


class SetFinding(NamedTuple):
    """One code found in the set."""

    code: str
    severity: Severity
    num: int
    """Number of rows that it is about."""
    examples: tuple[int, ...]
    """Row indices of the first examples (the first row for set-level findings)."""
    message: str
    numbers: dict[str, float]


def about_rows(
    code: str, rows: pl.Series, message: str, numbers: dict[str, float] | None = None
) -> list[SetFinding]:
    """Return a finding about rows, by their indices in the keys; no rows give no finding."""
    if not len(rows):
        return []
    first: Sequence[int] = rows.sort().head(EXAMPLES).to_list()
    return [
        SetFinding(code, catalog()[code].severity, len(rows), tuple(first), message, numbers or {})
    ]


def about_set(
    code: str, count: int, frame: pl.DataFrame, message: str, numbers: dict[str, float]
) -> list[SetFinding]:
    """Return a finding about the whole set; its example is the first row."""
    first = tuple(frame["at"].head(1).to_list())
    return [SetFinding(code, catalog()[code].severity, count, first, message, numbers)]
