"""Texts of an evaluation file are found in rows, and no other texts are."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from prefdata.building import build
from prefdata.check import RowChecks, examine_rows
from prefdata.check.rows.contamination import index_items, overlaps
from prefdata.config import make_config
from prefdata.errors import UsageError
from tests.prefdata.check.cases import GOOD
from tests.prefdata.conftest import chat_rows, write_rows

RecordsOf = Callable[..., pa.Table]
ITEM = (
    "A farmer has seventeen sheep and all but nine of them run away during the night of the "
    "great storm that nobody in the valley had seen coming how many are left"
)
WORDS = ITEM.split()
SHORT = "Where do the geese fly?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ITEM, True),
        (f"Tell me: {ITEM.upper()}!", True),
        ("x " + ", ".join(WORDS[5:18]) + " y", True),  # 13 words
        ("x " + " ".join(WORDS[5:17]) + " y", False),  # 12 of 30: 5 of its 23 runs of eight
        (" ".join(reversed(WORDS)), False),
        ("where do the GEESE fly", True),
        ("Tell me: where do the geese fly?", False),
        ("", False),
        ("yes", False),
    ],
)
def test_an_overlap_is_found_by_runs_of_words(text: str, expected: bool) -> None:
    index = index_items(pl.Series([ITEM, SHORT, "yes"]))

    assert overlaps(pl.Series(["other text", text]), index).tolist() == [False, expected]


def test_an_item_of_eight_to_twelve_words_is_found_by_its_coverage() -> None:
    item = "one two three four five six seven eight nine ten"  # three runs of eight
    index = index_items(pl.Series([item]))

    assert overlaps(pl.Series([item, item[4:], f"so {item} and more"]), index).tolist() == [
        True,
        False,
        True,
    ]


def test_what_all_items_share_is_not_an_item() -> None:
    head = "answer the following question with one of the letters a b c d and nothing else"
    index = index_items(pl.Series([f"{head} {n} {n + 1} {n + 2}" for n in range(0, 90, 3)]))

    assert overlaps(pl.Series([head]), index).tolist() == [False]
    assert overlaps(pl.Series([f"{head} 0 1 2"]), index).tolist() == [True]


@pytest.mark.parametrize("name", ["items.jsonl", "items.jsonl.gz", "items.txt", "items.json"])
def test_a_row_that_overlaps_a_file_is_refused(
    records_of: RecordsOf, tmp_path: Path, name: str
) -> None:
    value = {"question": ITEM, "choices": [{"text": SHORT}]}
    text = {"items.txt": f"{ITEM}\n{SHORT}\n", "items.json": json.dumps([value])}.get(
        name, json.dumps(value) + "\n"
    )
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    records = records_of(GOOD, GOOD | {"chosen": f"so {ITEM}"}, GOOD | {"prompt": SHORT})

    seen = examine_rows(records, RowChecks.of(evaluations=[str(path)]))

    assert seen.refused["code"].to_pylist() == ["PD503", "PD503"]
    assert seen.refused["line"].to_pylist() == [2, 3]


def test_a_build_with_another_evaluation_file_is_another_build(tmp_path: Path, tiny: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(20))
    (tmp_path / "eval.txt").write_text("What is 7 + 1? é 😀 \n")
    values = {"inputs": [str(rows)], "tokenizer": str(tiny), "out": tmp_path / "out"}
    config = make_config(values | {"evaluations": [str(tmp_path / "eval.txt")]}, place="test")

    build(config)
    (tmp_path / "eval.txt").write_text("Something else is asked here\n")
    with pytest.raises(UsageError, match=r"\[E142\]$"):
        build(config)
