"""The catalog: every code has a test, a name of its own and a place in the docs."""

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from prefdata.check.catalog import Check, all_checks, catalog
from prefdata.report.explain import FAMILIES, codes_page, errors, list_codes

TESTS = Path(__file__).resolve().parents[2]
ROOT = TESTS.parent
TEXTS = [path.read_text() for path in TESTS.rglob("*.py") if path.name != Path(__file__).name]
FOUND_AS = {"PD101": "R201", "PD103": "R211", "PD104": "R210"}  # the codes that rows carry


@pytest.mark.parametrize("code", catalog())
def test_every_code_is_tested(code: str) -> None:
    said = FOUND_AS.get(code, code)

    assert any(said in text for text in TEXTS)


def test_every_name_belongs_to_one_code() -> None:
    names = [check.name for check in catalog().values()]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", ["check/codes.yaml", "report/errors.yaml"])
def test_a_file_of_codes_has_each_code_once(path: str) -> None:
    text = (ROOT / "prefdata" / path).read_text()
    codes = re.findall(r"^([A-Z]+\d+):", text, re.MULTILINE)

    assert len(codes) == len(set(codes)) > 0
    assert set(codes) == set(all_checks() if path == "check/codes.yaml" else errors())


@pytest.mark.parametrize("check", all_checks().values(), ids=all_checks())
def test_every_check_has_the_fields_of_its_model(check: Check) -> None:
    TypeAdapter(Check).validate_python(check, strict=True)

    assert check.meaning.endswith((".", ".)"))
    assert check.advice.endswith(".")
    assert all(text.isprintable() for text in check)


def test_the_checks_of_rows_sets_and_tokens_are_sorted() -> None:
    assert list(catalog()) == sorted(catalog())


def test_the_list_and_the_page_have_every_code() -> None:
    listed, page = "\n".join(list_codes()), "\n".join(codes_page())

    for code, check in catalog().items():
        assert f"{code} {check.severity} {check.name}" in listed
        assert f"### {code} {check.name}\n" in page
        assert any(code.startswith(family) for family in FAMILIES)
