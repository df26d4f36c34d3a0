"""Explanations of all codes, for `prefdata explain` and docs/codes.md."""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple

import yaml

from prefdata.check import CHECKS, Check
from prefdata.check.codes import READING
from prefdata.check.codes.tokens import TOKEN_CHECKS
from prefdata.errors import UsageError

CATALOG = dict(sorted((CHECKS | TOKEN_CHECKS).items()))

# Faults of raw rows; `prefdata explain PD101` explains all of them.
FAULTS = {
    "R201": "not_json",
    "R202": "not_utf8",
    "R203": "lone_surrogate",
    "R204": "nul_character",
    "R205": "not_finite",
    "R206": "number_too_long",
    "R207": "duplicate_key",
    "R208": "too_deep",
    "R209": "not_an_object",
    "R210": "wrong_type",
    "R211": "missing_field",
    "R212": "row_too_long",
    "R214": "header_again",
    "R215": "spaced_quotes",
    "R216": "too_many_values",
}
FAULTS = dict(sorted((FAULTS | {check.code: check.name for check in READING}).items()))
_FAULT_PARENTS = {"R210": "PD104", "R211": "PD103"}
_OWN = {check.code: check for check in READING}
FAMILIES = {
    "PD1": "Rows and files",
    "PD2": "Conversations",
    "PD3": "Pairs",
    "PD4": "Rows together",
    "PD5": "Splits and evaluation sets",
    "PD6": "Biases, origins and private data",
    "PD7": "Tokens",
}
_LEVELS = {"E": "error", "W": "warning", "I": "count", "off": "off by default"}
_SCOPES = {"row": "a row", "set": "the whole set", "tokens": "a row's tokens"}


ERROR_FAMILIES = {
    "E1": "Files, directories and the machine",
    "E2": "Sharing on the Hub",
    "C1": "Configs and options",
    "T1": "Models, prompts and configs of the trainer",
    "T2": "Mismatches of model, data and reference",
    "T3": "Faults of a run",
    "X0": "Bugs in prefdata and dpo",
}
_EXIT_CODES = {
    "E120": 3,
    "E121": 3,
    "E187": 3,
    "E188": 3,
    "E189": 3,
    "E141": 4,
    "E203": 1,
    "E204": 1,
    "E209": 1,
    "E211": 1,
    "X001": 70,
    "T301": 1,
    "T303": 1,
    "T310": 1,
}


class ErrorText(NamedTuple):
    """Explanation of a code that ends a command."""

    code: str
    name: str
    meaning: str
    advice: str


@cache
def errors() -> dict[str, ErrorText]:
    """Return every code that an error line ends with, in the order of errors.yaml."""
    text = (resources.files("prefdata.report") / "errors.yaml").read_text(encoding="utf-8")
    return {code: ErrorText(code, *words) for code, words in yaml.safe_load(text).items()}


def describe_code(code: str) -> Check | ErrorText:
    """Return the explanation of a code; a fault of raw rows has the text of its check."""
    if code in errors():
        return errors()[code]
    if code in _OWN:
        return _OWN[code]
    if code in FAULTS:
        parent = CATALOG[_FAULT_PARENTS.get(code, "PD101")]
        return parent._replace(code=code, name=FAULTS[code])
    if code not in CATALOG:
        known = ", ".join([*sorted(CATALOG | FAULTS), *errors()])
        raise UsageError("C140", code, "no such code", f"the codes are {known}")
    return CATALOG[code]


def explain_code(check: Check | ErrorText) -> Iterator[str]:
    """Yield the explanation of one code, line by line."""
    if isinstance(check, ErrorText):
        yield f"{check.code} {check.name} (exit code {_EXIT_CODES.get(check.code, 2)})"
        yield check.meaning
        yield f"What to do: {check.advice}"
        return
    yield f"{check.code} {check.name} ({check.severity})"
    yield check.meaning
    yield f"What to do: {check.advice}"
    yield f"Example: {check.example}"
    yield f"It is about {_SCOPES[check.scope]}, and found while {check.found}."


def list_codes() -> Iterator[str]:
    """Yield every code with its severity and name, one per line."""
    for family, title in FAMILIES.items():
        yield title
        for code, check in CATALOG.items():
            if code.startswith(family):
                yield f"  {code} {check.severity} {check.name}"
    yield "Faults of raw rows"
    for code, name in FAULTS.items():
        yield f"  {code} E {name}"
    for family, title in ERROR_FAMILIES.items():
        yield title
        for code, error in errors().items():
            if code.startswith(family):
                yield f"  {code} {error.name}"


def codes_page() -> Iterator[str]:
    """Yield the body of docs/codes.md, line by line."""
    for family, title in FAMILIES.items():
        yield from ("", f"## {title}")
        for code, check in CATALOG.items():
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
