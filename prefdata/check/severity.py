"""Severities after the changes of a config."""

from collections.abc import Mapping

from prefdata.check.catalog import CHECKS, Severity
from prefdata.errors import UsageError

LEVELS: dict[str, Severity] = {"E": "E", "W": "W", "I": "I", "off": "off"}


def resolve_severity(changes: Mapping[str, str]) -> dict[str, Severity]:
    """Return the severity of every code; raise a UsageError for an invalid change."""
    resolved = {code: check.severity for code, check in CHECKS.items()}
    for code, level in changes.items():
        if code not in CHECKS:
            known = ", ".join(CHECKS)
            raise UsageError("C130", f"severity.{code}", "no such check", f"name one of {known}")
        if level not in LEVELS:
            problem = f"{level!r} is not a severity"
            raise UsageError("C131", f"severity.{code}", problem, "write E, W, I or off")
        if CHECKS[code].found == "reading" and level != "E":
            problem = "is found while reading, and such a row gives no pair to keep"
            raise UsageError("C132", f"severity.{code}", problem, "leave it at E")
        resolved[code] = LEVELS[level]
    return resolved


def changed_severities(changes: Mapping[str, str]) -> list[str]:
    """Return a report's notes on codes whose severity differs from the catalog's."""
    return [
        f"{code} {CHECKS[code].name} is {level} here, and {CHECKS[code].severity} by default"
        for code, level in sorted(changes.items())
        if level != CHECKS[code].severity
    ]
