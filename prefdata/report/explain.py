"""Explanations of all codes, for `prefdata explain` and docs/codes.md."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from prefdata.check.catalog import Check, all_checks, catalog, faults, read_texts
from prefdata.check.rows.own import check_of, is_own
from prefdata.errors import UsageError

FAMILIES = {
    "PD1": "Rows and files",
    "PD2": "Conversations",
    "PD3": "Pairs",
    "PD4": "Rows together",
    "PD5": "Splits and evaluation sets",
    "PD6": "Biases, origins and private data",
    "PD7": "Tokens",
}
ERROR_FAMILIES = {
    "E1": "Files, directories and the machine",
    "E2": "Sharing on the Hub",
    "C1": "Configs and options",
    "T1": "Models, prompts and configs of the trainer",
    "T2": "Mismatches of model, data and reference",
    "T3": "Faults of a run",
    "X0": "Bugs in prefdata and dpo",
}
_LEVELS = {"E": "error", "W": "warning", "I": "count", "off": "off by default"}
_SCOPES = {"row": "a row", "set": "the whole set"}


class ErrorText(NamedTuple):
    """Explanation of a code that ends a command."""

    code: str
    name: str
    meaning: str
    advice: str
    exit: int = 2


@cache
def errors() -> dict[str, ErrorText]:
    """Return every code that an error line ends with, in the order of errors.yaml."""
    texts = read_texts("prefdata.report", "errors.yaml")
    return {code: ErrorText(code, **fields) for code, fields in texts.items()}


def describe_code(code: str) -> Check | ErrorText:
    """Return the explanation of a code; a check of your own is explained by its docstring."""
    explained: dict[str, Check | ErrorText] = {**catalog(), **faults(), **errors()}
    if code.upper() in explained:
        return explained[code.upper()]
    if not is_own(code):
        known = ", ".join([*sorted(all_checks()), *errors()])
        raise UsageError("C140", code.upper(), "no such code", f"the codes are {known}")
    try:
        return check_of(code)
    except ValueError as error:
        remedy = "name a function as module:function"
        raise UsageError("C140", code, str(error), remedy) from error


def explain_code(check: Check | ErrorText) -> Iterator[str]:
    """Yield the explanation of one code, line by line."""
    if isinstance(check, ErrorText):
        yield f"{check.code} {check.name} (exit code {check.exit})"
        yield check.meaning
        yield f"What to do: {check.advice}"
        return
    yield f"{check.code} {check.name} ({check.severity})"
    yield check.meaning
    yield f"What to do: {check.advice}"
    if check.example:
        yield f"Example: {check.example}"
    yield f"It is about {_SCOPES[check.scope]}, and found while {check.found}."


def list_codes() -> Iterator[str]:
    """Yield every code with its severity and name, one per line."""
    for family, title in FAMILIES.items():
        yield title
        for code, check in catalog().items():
            if code.startswith(family):
                yield f"  {code} {check.severity} {check.name}"
    yield "Faults of raw rows"
    for code, check in faults().items():
        yield f"  {code} E {check.name}"
    for family, title in ERROR_FAMILIES.items():
        yield title
        for code, error in errors().items():
            if code.startswith(family):
                yield f"  {code} {error.name}"


def codes_page() -> Iterator[str]:
    """Yield the body of docs/codes.md, line by line."""
    for family, title in FAMILIES.items():
        yield from ("", f"## {title}")
        for code, check in catalog().items():
            if code.startswith(family):
                level, scope = _LEVELS[check.severity], _SCOPES[check.scope]
                yield from ("", f"### {code} {check.name}", "")
                yield f"{level.capitalize()} · {scope} · found while {check.found}"
                yield from ("", check.meaning.replace("<", "&lt;"), "")
                yield f"*What to do:* {check.advice}"
                yield from ("", f"*Example:* `` {check.example} ``")
    for family, title in ERROR_FAMILIES.items():
        yield from ("", f"## {title}", "", "| code | meaning | what to do |", "|---|---|---|")
        for code, error in errors().items():
            if code.startswith(family):
                yield f"| {code} {error.name} | {error.meaning} | {error.advice} |"
