"""Counts of findings in real sets; docs/codes.md has the same numbers."""

import re
from pathlib import Path

import orjson
import polars as pl
import pytest

from prefdata.check import RowChecks, examine_rows
from prefdata.check.rows.rules import SPEAKER
from prefdata.read import expand_inputs
from prefdata.records.keys import GROUP_ID, keys_of
from prefdata.validation import validate
from tests.prefdata.read.rows import FileRows, read_file
from tests.real_data import WHOLE

COUNTS = {
    "hh-rlhf-harmless-base-test/test.jsonl.gz": {
        "PD107": 2, "PD202": 4, "PD205": 4, "PD207": 5, "PD209": 32, "PD309": 71, "PD310": 6,
        "PD311": 158, "PD313": 2, "PD407": 11, "PD607": 16,
    },
    "llamafactory-demo/dpo_en_demo.json": {
        "PD106": 3, "PD209": 2, "PD302": 1, "PD309": 3, "PD310": 10, "PD311": 26, "PD312": 4,
        "PD313": 1, "PD401": 5,
    },
    "llamafactory-demo/dpo_zh_demo.json": {
        "PD106": 6, "PD209": 1, "PD310": 1, "PD311": 10, "PD312": 3, "PD401": 11, "PD607": 1,
    },
    "llms-from-scratch-pref/instruction-data-with-preference.json": {
        "PD301": 6, "PD302": 23, "PD312": 5,
    },
}  # fmt: skip


def real(name: str) -> Path:
    if not (WHOLE / name).exists():
        pytest.skip(f"{name} is not here")
    return WHOLE / name


def read(path: Path) -> FileRows:
    (file,) = expand_inputs([str(path)])
    return read_file(file)


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_of_a_real_set_are_those_of_the_docs(name: str) -> None:
    report = validate([str(real(name))])

    assert {finding.code: finding.count for finding in report.findings} == COUNTS[name]


def test_the_docs_have_the_counts() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "codes.md").read_text()
    codes = sorted({code for counts in COUNTS.values() for code in counts})
    rows = [
        f"| {code} | " + " | ".join(str(counts.get(code, 0)) for counts in COUNTS.values()) + " |"
        for code in codes
    ]

    assert "\n".join(rows) in page


def test_hh_replies_with_a_role_marker_are_in_33_rows() -> None:
    """32 of them are kept; the last is one of the five whose prompts differ."""
    rows = read(real("hh-rlhf-harmless-base-test/test.jsonl.gz"))
    kept = examine_rows(rows.records, RowChecks.of()).reported["PD209"].num
    replies = [
        [raw[side].rsplit("\n\nAssistant:", 1)[1] for side in ("chosen", "rejected")]
        for raw in map(orjson.loads, rows.rejected["raw"].to_pylist())
    ]

    assert kept + sum(any(re.search(SPEAKER, one) for one in both) for both in replies) == 33


def test_hh_has_two_prompts_twice() -> None:
    keys = keys_of(read(real("hh-rlhf-harmless-base-test/test.jsonl.gz")).records)

    assert keys.group_by(GROUP_ID).len().filter(pl.col("len") > 1)["len"].to_list() == [2, 2]
