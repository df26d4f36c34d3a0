"""Findings of the checks of a whole set."""

from collections.abc import Iterable
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


class RowSums(NamedTuple):
    """Rows that a check finds in a part of the set; the sums of parts are those of the whole."""

    num: int = 0
    at: tuple[int, ...] = ()
    """The first of the rows, by their indices in the keys."""
    groups: int = 0
    """What the message counts: prompts, threads, completions."""
    most: int = 0


def rows_in(rows: pl.Series, groups: int = 0, most: int = 0) -> RowSums:
    """Return the sums of a part, of these rows."""
    return RowSums(len(rows), tuple(map(int, rows.sort().head(EXAMPLES))), groups, most)


def add_sums(parts: Iterable[RowSums]) -> RowSums:
    """Return the sums over all parts."""
    total = RowSums()
    for part in parts:
        at = tuple(sorted(total.at + part.at)[:EXAMPLES])
        most = max(total.most, part.most)
        total = RowSums(total.num + part.num, at, total.groups + part.groups, most)
    return total


def about_rows(code: str, rows: RowSums, message: str) -> list[SetFinding]:
    """Return a finding about rows; no rows give no finding."""
    return [SetFinding(code, rows.num, rows.at, message)] if rows.num else []


def about_set(code: str, count: int, first: int | None, message: str) -> list[SetFinding]:
    """Return a finding about the whole set; its example is the first row."""
    return [SetFinding(code, count, () if first is None else (first,), message)]
