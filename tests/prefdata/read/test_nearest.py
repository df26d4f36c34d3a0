"""An unknown file is named: the nearest layout, the column, the kind it has and the kind needed."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefdata.errors import UsageError
from prefdata.read import expand_inputs
from tests.prefdata.read.rows import read_file

Q = {"prompt": "q?", "chosen": "It is so.", "rejected": "No."}
OTHER = {"prompt": "p?", "chosen": "It is.", "rejected": "Not."}


def problem_of(folder: Path, content: Any) -> str:
    """Return the error of a file of rows, or of one that is this one object."""
    file = folder / ("rows.jsonl" if isinstance(content, list) else "rows.json")
    rows = content if isinstance(content, list) else [content]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (opened,) = expand_inputs([str(file)])
    with pytest.raises(UsageError) as caught:
        read_file(opened)
    assert caught.value.code == "PD102"
    return f"{caught.value.problem}; {caught.value.remedy}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"prompt": {"text": "q"}}, ["trl-std-explicit", '`prompt` is an object ({"text":"q"})']),
        ({"chosen": ["a"], "rejected": ["b"]}, ['`chosen` is a list of texts (["a"]), not text']),
        ({"chosen": 5, "rejected": 6}, ["`chosen` is a number (5), not"]),
        (
            {"chosen": {"text": "a"}, "rejected": {"text": "b"}},
            ["trl-std-explicit", "`chosen` is an object", "`rejected` is an object"],
        ),
    ],
)
def test_a_column_of_another_kind_is_named_with_the_kind_it_needs(
    tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    said = problem_of(tmp_path, [Q | change] * 3)

    assert "the columns prompt, chosen, rejected are those of the nearest layout" in said
    assert "no layout has the columns" not in said
    for text in expected:
        assert text in said


@pytest.mark.parametrize("label", ["good", 7, [True]])
def test_a_label_of_another_kind_is_named(tmp_path: Path, label: Any) -> None:
    said = problem_of(tmp_path, [{"prompt": "q", "completion": "a", "label": label}] * 3)

    assert "those of the nearest layout, trl-unpaired, but `label` is" in said
    assert said.split(";")[0].endswith("not true or false")


def test_a_layout_that_lacks_some_columns_is_named_with_them(tmp_path: Path) -> None:
    row = {"prompt": "q", "response_1": "a", "response_2": "b", "verdict": "first"}
    said = problem_of(tmp_path, [row] * 3)

    assert "nearest: helpsteer2-preference, which also needs `preference_strength`" in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({name: [Q[name], OTHER[name]] for name in Q}, "is one object of columns, with 2 values"),
        (
            {name: {"0": Q[name], "1": OTHER[name]} for name in Q},
            "is one object of columns, with 2 values in each",
        ),
        ({"0": Q, "1": OTHER}, "is one object of 2 rows by number; write the rows by themselves"),
        (
            {"columns": list(Q), "index": [0], "data": [list(Q.values())]},
            "is one object of columns and 1 lists of values",
        ),
        (
            {"pairs": [Q, OTHER], "name": "mine"},
            "whose `pairs` is a list of 2 objects; if they are the rows, write them by themselves:"
            " jq -c '.[\"pairs\"][]'",
        ),
        ([{"row_idx": 0, "row": Q}, {"row_idx": 1, "row": OTHER}], "jq -c '.rows[].row'"),
    ],
)
def test_an_object_around_the_rows_is_named_with_the_way_out(
    tmp_path: Path, content: Any, expected: str
) -> None:
    assert expected in problem_of(tmp_path, content)
