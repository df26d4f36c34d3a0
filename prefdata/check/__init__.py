"""Checks of records: each has a code, a severity, an expression and advice."""

from prefdata.check.catalog import CHECKS, Check, Severity
from prefdata.check.limits import CheckLimits
from prefdata.check.rows.run import CheckedRows, RowChecks, check_rows, examine_rows, find_rows

__all__ = [
    "CHECKS",
    "Check",
    "CheckLimits",
    "CheckedRows",
    "RowChecks",
    "Severity",
    "check_rows",
    "examine_rows",
    "find_rows",
]
