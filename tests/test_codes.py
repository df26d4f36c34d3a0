"""`prefdata explain` knows every code that a command can print, and no other."""

import re
from pathlib import Path

import pytest

from prefdata.check.catalog import all_checks
from prefdata.report.explain import ERROR_FAMILIES, describe_code, errors

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"""["'\[](PD\d{3}|[ECRTX]\d{3})["'\]]""")
RETIRED = {"T110", "T302"}  # printed by earlier versions


def codes_in_source() -> dict[str, str]:
    """Return every code that is a separate string in the packages, with one file of it."""
    found: dict[str, str] = {}
    for package in ("prefdata", "dpo"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for code in CODE.findall(path.read_text()):
                found.setdefault(code, str(path.relative_to(ROOT)))
    return found


def test_every_code_that_is_raised_is_explained() -> None:
    known = all_checks().keys() | errors().keys()
    missing = {code: path for code, path in codes_in_source().items() if code not in known}

    assert not missing, "add them to prefdata/report/errors.yaml, or to the checks"


def test_no_code_is_explained_that_nothing_raises() -> None:
    assert errors().keys() - codes_in_source().keys() == RETIRED


@pytest.mark.parametrize("code", errors())
def test_an_explanation_is_whole(code: str) -> None:
    found = describe_code(code)

    assert code.startswith(tuple(ERROR_FAMILIES))
    assert re.fullmatch(r"[a-z0-9_]+", found.name)
    for text in (found.meaning, found.advice):
        assert text
        assert "|" not in text  # which would end a cell of docs/codes.md
        assert text.isprintable()
