"""The catalog: every code has a test, a name of its own and a place in the docs."""

from pathlib import Path

import pytest

from prefdata.report.explain import CATALOG, FAMILIES, codes_page, list_codes

TESTS = Path(__file__).resolve().parents[2]
TEXTS = [path.read_text() for path in TESTS.rglob("*.py") if path.name != Path(__file__).name]
FOUND_AS = {"PD101": "R201", "PD103": "R211", "PD104": "R210"}  # the codes that rows carry


@pytest.mark.parametrize("code", sorted(CATALOG))
def test_every_code_is_tested(code: str) -> None:
    said = FOUND_AS.get(code, code)

    assert any(said in text for text in TEXTS)


def test_every_name_belongs_to_one_code() -> None:
    names = [check.name for check in CATALOG.values()]

    assert len(set(names)) == len(names)
    assert all(check.code == code for code, check in CATALOG.items())


def test_the_list_and_the_page_have_every_code() -> None:
    listed, page = "\n".join(list_codes()), "\n".join(codes_page())

    for code, check in CATALOG.items():
        assert f"{code} {check.severity} {check.name}" in listed
        assert f"### {code} {check.name}\n" in page
        assert any(code.startswith(family) for family in FAMILIES)
