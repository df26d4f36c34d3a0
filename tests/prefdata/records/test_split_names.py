"""Splits by the names of files and directories: read, ignored, or an error."""

from pathlib import Path

import pytest

from prefdata.errors import UsageError
from prefdata.records.split_names import FileSplit, kind_of, name_splits, rank_of

TRAIN, TEST, VALIDATION = "train", "test", "validation"
# Names of the inputs, and the split of each.
DIVIDED: list[tuple[list[str], list[str]]] = [
    (["train_prefs-00000-of-00001.parquet", "test_prefs-00000-of-00001.parquet"], [TRAIN, TEST]),
    (["train.jsonl", "test.jsonl"], [TRAIN, TEST]),
    (["data/train/x.jsonl", "data/test/x.jsonl"], [TRAIN, TEST]),
    (["prefs.train.jsonl.gz", "prefs.dev.jsonl.gz"], [TRAIN, VALIDATION]),
    (["TRAIN.CSV", "Valid.csv", "eval.csv"], [TRAIN, VALIDATION, "eval"]),
    (["trainPrefs.json", "TestPrefs.json"], [TRAIN, TEST]),
    (["hh_train_v2.jsonl", "hh_test_v2.jsonl"], [TRAIN, TEST]),
    (["uf_train_prefs.parquet", "uf_test_prefs.parquet"], [TRAIN, TEST]),
    (["test-00000-of-00002.arrow", "test-00001-of-00002.arrow", "train-00000-of-00001.arrow"],
     [TEST, TEST, TRAIN]),
    (["hh-train/part-0.jsonl", "hh-test/part-0.jsonl"], [TRAIN, TEST]),
    (["default/partial-train/0000.parquet", "default/validation/0000.parquet"],
     [TRAIN, VALIDATION]),
    (["a/held_out.jsonl", "a/rows.jsonl"], [TEST, TRAIN]),
    (["test_2024-05.jsonl", "more.jsonl", "train.jsonl"], [TEST, TRAIN, TRAIN]),
    (["valid1.jsonl", "valid2.jsonl", "x.jsonl"], [VALIDATION, VALIDATION, TRAIN]),
    (["training_notes.jsonl", "test.jsonl"], [TRAIN, TEST]),
    (["latest.jsonl", "test.jsonl"], [TRAIN, TEST]),
    (["test/train-0.jsonl", "test/test-0.jsonl"], [TRAIN, TEST]),
    (["test_prefs_clean_en.jsonl", "train_prefs_clean_en.jsonl"], [TEST, TRAIN]),
    (["prefs.jsonl", "prefs_test.jsonl"], [TRAIN, TEST]),
    (["helpsteer_train.jsonl", "hh_test.jsonl"], [TRAIN, TEST]),
    (["more.jsonl", "test_prefs-00000-of-00001.parquet"], [TRAIN, TEST]),
    (["train/hh/a.jsonl", "test/hh/a.jsonl"], [TRAIN, TEST]),
    (["dev-data.jsonl", "training-set.jsonl", "hold-out_set.jsonl"], [VALIDATION, TRAIN, TEST]),
]  # fmt: skip
# Names that are one set: none names a split, or all name the same one.
ONE_SET: list[list[str]] = [
    ["test.jsonl.gz"],
    ["test-prep-questions.jsonl"],
    ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    ["train.jsonl", "more.jsonl"],
    ["latest.jsonl", "contest.jsonl"],
    ["attestation.jsonl", "devotion.jsonl", "trainer.jsonl", "protest.jsonl", "evaluator.jsonl"],
    ["training_notes.jsonl", "questions.jsonl"],
    ["/tmp/test/a.jsonl", "/tmp/test/b.jsonl"],
    ["test/dev/a.jsonl", "test/dev/b.jsonl"],
    ["interval.jsonl", "validity.jsonl", "testimony.csv", "strain.csv"],
    ["a.jsonl", "b.jsonl"],
    ["turing-test.jsonl", "ab-test.jsonl"],
    ["x/test-lab/b/r.jsonl", "x/y/r.jsonl"],
]
# Names with two readings that differ in what is trained, and the one that the error names.
TWO_READINGS: list[tuple[list[str], str]] = [
    (["test-prep-questions.jsonl", "chat.jsonl"], "test-prep-questions.jsonl"),
    (["train_test.jsonl", "train.jsonl", "test.jsonl"], "train_test.jsonl"),
    (["data/test/train.jsonl", "data/x.jsonl", "data/test.jsonl"], "data/test/train.jsonl"),
    (["my_test_file.jsonl", "rows.jsonl"], "my_test_file.jsonl"),
    (["notes-on-dev-tools.jsonl", "chat.jsonl"], "notes-on-dev-tools.jsonl"),
    (["turing-test.jsonl", "chat.jsonl"], "turing-test.jsonl"),
    (["DevTools.jsonl", "chat.jsonl"], "DevTools.jsonl"),
    (["valid_rows.jsonl", "invalid_rows.jsonl"], "valid_rows.jsonl"),
    (["hh-test/a.jsonl", "chat/b.jsonl"], "hh-test/a.jsonl"),
    (["training_notes.jsonl", "test-prep-questions.jsonl"], "test-prep-questions.jsonl"),
    (
        [f"o/{name}-00000-of-00001.parquet" for name in ("train", "test", "hard")],
        "o/hard-00000-of-00001.parquet",
    ),
]


@pytest.mark.parametrize(("names", "splits"), DIVIDED, ids=lambda some: some[0])
def test_names_give_the_split_of_each_file(names: list[str], splits: list[str]) -> None:
    assert [one.split for one in name_splits(names, {})] == splits
    backwards = name_splits(names[::-1], {})
    assert [one.split for one in backwards] == splits[::-1], "in any order of the files"
    elsewhere = name_splits([str(Path("/srv/test/set-2") / name) for name in names], {})
    assert [one.split for one in elsewhere] == splits, "wherever the files are"


@pytest.mark.parametrize("names", ONE_SET, ids=lambda names: names[0])
def test_false_friends_and_a_single_name_divide_nothing(names: list[str]) -> None:
    assert {one.said_by for one in name_splits(names, {})} == {"none"}


@pytest.mark.parametrize(("names", "place"), TWO_READINGS, ids=lambda some: some[0])
def test_two_readings_are_an_error_that_names_both(names: list[str], place: str) -> None:
    with pytest.raises(UsageError, match="--split train=FILE") as caught:
        name_splits(names, {})

    assert (caught.value.code, caught.value.place) == ("E185", place)
    assert name_splits(names, {place: "train"})[names.index(place)] == FileSplit("train", "given")


def test_the_source_of_a_split_is_reported() -> None:
    names = ["d/test/a.jsonl", "d/dev.jsonl", "d/rest.jsonl", "d/x.jsonl", "d/y.jsonl"]
    given = {"d/x.jsonl": "hard", "d/y.jsonl": "rows"}

    assert name_splits(names, given) == [
        FileSplit("test", "folder"),
        FileSplit("validation", "name"),
        FileSplit("train", "rest"),
        FileSplit("hard", "given"),
        FileSplit(None, "rows"),
    ]


def test_splits_are_sorted_by_precedence() -> None:
    names = ["test", "eval", "dev", "chat", "train", "test_hard", "art"]

    found = sorted(names, key=rank_of)

    assert found == ["train", "art", "chat", "dev", "eval", "test", "test_hard"]
    assert [kind_of(name) for name in ("Valid2", "contest", "test-prep-questions")] == [
        "validation",
        None,
        None,
    ]
