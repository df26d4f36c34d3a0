"""JSONTestSuite (Seriot, "Parsing JSON is a Minefield"): its 318 cases as files and inside rows.

The cases are not part of this project: JSON_TEST_SUITE names the directory of the files
`y_*.json` (valid), `n_*.json` (not JSON) and `i_*.json` (either).
"""

import os
from pathlib import Path

import pytest

from prefdata.errors import PrefdataError
from prefdata.read.faults import RowError
from prefdata.read.files.parse_json import parse_line
from prefdata.read.limits import Limits
from prefdata.validation import ValidateOptions, validate

SUITE = os.environ.get("JSON_TEST_SUITE", "")
CASES = sorted(Path(SUITE).glob("[yni]_*.json")) if SUITE else []
# Valid JSON that a row may not contain: a duplicate key, U+0000.
REFUSED = {
    "y_object_duplicated_key.json": "R207",
    "y_object_duplicated_key_and_value.json": "R207",
    "y_object_escaped_null_in_key.json": "R204",
    "y_string_null_escape.json": "R204",
}
pytestmark = pytest.mark.skipif(not CASES, reason="JSON_TEST_SUITE names no directory of cases")


def code_of(line: bytes) -> str:
    try:
        parse_line(line, Limits())
    except RowError as fault:
        return fault.code
    return ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_case_in_a_row_is_kept_if_it_is_json_and_refused_if_not(case: Path) -> None:
    before = b'{"prompt": "q", "chosen": "a", "rejected": "b", "more": '
    code = code_of(before + case.read_bytes() + b"}")

    if case.name.startswith("y_"):
        assert code == REFUSED.get(case.name, "")
    if case.name.startswith("n_"):
        assert code.startswith("R2")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_case_as_a_file_loses_no_line(case: Path) -> None:
    options = ValidateOptions(layout="trl-std-explicit")
    try:
        counts = validate([str(case)], options).lines
    except PrefdataError:  # the file as a whole, with its code
        return
    assert counts.kept == 0, "no case has the columns of a pair"
    assert counts.lines == counts.blank + counts.rejected
