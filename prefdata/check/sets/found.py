"""What a check of a whole set says."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from prefdata.check.catalog import CHECKS
from prefdata.check.code import Severity
from prefdata.records.findings import EXAMPLES


class SetFinding(NamedTuple):
    """One code that the set has."""

    code: str
    severity: Severity
    num: int
    """Rows that it is about."""
    examples: tuple[int, ...]
    """Places in the keys of the first of them; of the first of all, where it is about the set."""
    message: str
    numbers: dict[str, float]


def about_rows(
    code: str, rows: pl.Series, message: str, numbers: dict[str, float] | None = None
) -> list[SetFinding]:
    """A finding about rows, by their places in the keys; none where there are none."""
    if not len(rows):
        return []
    first: Sequence[int] = rows.sort().head(EXAMPLES).to_list()
    return [
        SetFinding(code, CHECKS[code].severity, len(rows), tuple(first), message, numbers or {})
    ]


def about_set(
    code: str, count: int, frame: pl.DataFrame, message: str, numbers: dict[str, float]
) -> list[SetFinding]:
    """A finding that no row has by itself; its example is the first of them."""
    first = tuple(frame["at"].head(1).to_list())
    return [SetFinding(code, CHECKS[code].severity, count, first, message, numbers)]
