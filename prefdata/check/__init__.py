"""Checks of records: each has a code, a severity, an expression and advice."""

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.run import CheckedRows, RowChecks, examine_rows

__all__ = ["CheckLimits", "CheckedRows", "RowChecks", "examine_rows"]
