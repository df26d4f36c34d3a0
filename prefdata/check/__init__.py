"""Rules over records: each a code, a severity, an expression and an advice."""

from prefdata.check.catalog import CHECKS, Check, Severity
from prefdata.check.rows import check_rows, find_rows

__all__ = ["CHECKS", "Check", "Severity", "check_rows", "find_rows"]
