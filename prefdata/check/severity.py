"""Severities of codes, after the changes of a config."""

from collections.abc import Iterable, Mapping
from typing import get_args

from prefdata.check.catalog import Severity, catalog, is_of_tokens
from prefdata.check.rows.own import check_of
from prefdata.errors import UsageError

LEVELS: dict[str, Severity] = {level: level for level in get_args(Severity)}


def resolve_severity(changes: Mapping[str, str], own: Iterable[str] = ()) -> dict[str, Severity]:
    """Return the severity of every code of rows and sets; raise a UsageError for a wrong change.

    `own` names the user's checks.
    """
    checks = {code: check for code, check in catalog().items() if not is_of_tokens(code)}
    checks |= {code: check_of(code) for code in own}
    resolved = {code: check.severity for code, check in checks.items()}
    for code, level in changes.items():
        if code in catalog() and code not in checks:
            problem = "is a check of tokens, and no tokenizer is named"
            raise UsageError("C130", f"severity.{code}", problem, "name one")
        if code not in checks:
            known = ", ".join(checks)
            raise UsageError("C130", f"severity.{code}", "no such check", f"name one of {known}")
        if level not in LEVELS:
            problem = f"{level!r} is not a severity"
            raise UsageError("C131", f"severity.{code}", problem, "write E, W, I or off")
        if checks[code].found == "reading" and level != "E":
            problem = "is found while reading, and such a row gives no pair to keep"
            raise UsageError("C132", f"severity.{code}", problem, "leave it at E")
        resolved[code] = LEVELS[level]
    return resolved


def changed_severities(severity: Mapping[str, str]) -> list[str]:
    """Return a report's notes on codes whose severity differs from the catalog's."""
    return [
        f"{code} {check.name} is {level} here, and {check.severity} by default"
        for code, level in sorted(severity.items())
        if (check := check_of(code)).severity != level
    ]
