"""Catalog of the codes that rows, sets and tokens can have: the source of reports and docs.

codes.yaml contains only texts. `rows/rules.py` finds the codes of rows, the functions in
`sets/run.py` those of sets, and `prefdata/tokens` those that need a tokenizer.
"""

from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import yaml

Severity = Literal["E", "W", "I", "off"]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if it is compiled


class Check(NamedTuple):
    """One code. Its meaning never changes; a new meaning gets a new code."""

    code: str
    name: str
    severity: Severity  # E: the row is refused (a set: the build fails); W: reported; I: counted
    scope: Literal["row", "set"]
    found: Literal["reading", "checking", "comparing", "building"]
    meaning: str
    advice: str
    example: str
    counts: Literal["row", "pair", "word"] = "pair"
    """What its number counts; faults that are found while reading count rows."""


def read_texts(package: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the texts of codes in a YAML file of a package, by code."""
    text = (resources.files(package) / name).read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.load(text, _Loader)
    return found


@cache
def all_checks() -> dict[str, Check]:
    """Return every code of codes.yaml; a code that is `explained_by` another has its texts."""
    found: dict[str, Check] = {}
    for code, texts in read_texts("prefdata.check", "codes.yaml").items():
        if "explained_by" in texts:
            found[code] = found[texts["explained_by"]]._replace(code=code, name=texts["name"])
        else:
            unit = "row" if texts["found"] == "reading" else "pair"
            found[code] = Check(code, **{"counts": unit, **texts})
    return found


@cache
def catalog() -> dict[str, Check]:
    """Return the checks of rows, sets and tokens (PD...), sorted by code."""
    return {code: check for code, check in all_checks().items() if code.startswith("PD")}


@cache
def faults() -> dict[str, Check]:
    """Return the faults of raw rows (R...), sorted by code."""
    return {code: all_checks()[code] for code in sorted(all_checks().keys() - catalog().keys())}


def is_of_tokens(code: str) -> bool:
    """Return whether a code is found while tokens are built."""
    return code in catalog() and catalog()[code].found == "building"
