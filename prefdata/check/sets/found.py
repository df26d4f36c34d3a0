"""Findings of the checks of a whole set."""

from typing import NamedTuple

import polars as pl

from prefdata.check.catalog import Severity
from prefdata.records.findings import EXAMPLES


class SetFinding(NamedTuple):
    """One code found in the set."""

    code: str
    num: int
    """Number of rows that it is about."""
    examples: tuple[int, ...]
    """Row indices of the first examples (the first row for set-level findings)."""
    message: str
    severity: Severity = "W"
    """As the config resolves it, once all findings are known."""
    least: Severity = "off"
    """Severity of this finding at least, unless the config sets one for its code."""


def about_rows(code: str, rows: pl.Series, message: str) -> list[SetFinding]:
    """Return a finding about rows, by their indices in the keys; no rows give no finding."""
    first = tuple(rows.sort().head(EXAMPLES))
    return [SetFinding(code, len(rows), first, message)] if first else []


def about_set(code: str, count: int, frame: pl.DataFrame, message: str) -> list[SetFinding]:
    """Return a finding about the whole set; its example is the first row."""
    return [SetFinding(code, count, tuple(frame["at"].head(1)), message)]
