"""Rows in memory give the same build as a file of these rows."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

import prefdata
from prefdata.errors import PrefdataError
from prefdata.store.reader import Build


def rows(start: int = 0, stop: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"What is {n}? é😀"}],
            "chosen": [{"role": "assistant", "content": f"It is {n}."}],
            "rejected": [{"role": "assistant", "content": f"Who knows {n}?"}],
            "score_chosen": n / 2 + 1,
            "score_rejected": 0.5,
        }
        for n in range(start, stop)
    ]


def write_lines(path: Path, some: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in some))
    return path


@pytest.fixture
def plain(tiny: Path, tmp_path: Path) -> Build:
    path = write_lines(tmp_path / "plain.jsonl", rows())
    return prefdata.build(str(path), tokenizer=str(tiny), out=tmp_path / "plain")


def from_generator() -> Iterator[dict[str, Any]]:
    yield from rows()


KINDS: dict[str, Callable[[], Any]] = {
    "Dataset": lambda: Dataset.from_list(rows()),
    "Dataset whose rows are chosen by index": lambda: Dataset.from_list(rows(-5, 60)).select(
        range(5, 45)
    ),
    "Dataset with another format": lambda: Dataset.from_list(rows()).with_format("numpy"),
    "IterableDataset": lambda: Dataset.from_list(rows()).to_iterable_dataset(),
    "IterableDataset of a generator": lambda: IterableDataset.from_generator(from_generator),
    "polars frame": lambda: pl.DataFrame(rows()),
    "pandas frame": lambda: pd.DataFrame(rows()),
    "Arrow table": lambda: pa.Table.from_pylist(rows()),
    "Arrow reader": lambda: pa.Table.from_pylist(rows()).to_reader(max_chunksize=7),
    "list of dicts": rows,
    "tuple of dicts": lambda: tuple(rows()),
    "generator": from_generator,
    "dicts with scalars of numpy": lambda: [
        {**row, "score_chosen": np.float64(row["score_chosen"])} for row in rows()
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_memory_are_built_as_a_file_of_them_is(
    kind: str, plain: Build, tiny: Path, tmp_path: Path
) -> None:
    built = prefdata.build(KINDS[kind](), tokenizer=str(tiny), out=tmp_path / "out")

    assert built.content_hash == plain.content_hash
    (sealed,) = built.manifest.inputs
    assert sealed.name in ("rows.arrow", "rows.jsonl")
    assert len(sealed.sha256) == 64
    assert built.manifest.splits == plain.manifest.splits


def test_each_split_of_a_dictionary_is_kept(tiny: Path, tmp_path: Path) -> None:
    files = {
        "train": [str(write_lines(tmp_path / "a.jsonl", rows(0, 30)))],
        "test": [str(write_lines(tmp_path / "b.jsonl", rows(30, 40)))],
    }
    plain = prefdata.build(files, tokenizer=str(tiny), out=tmp_path / "plain")
    dictionary = DatasetDict(
        train_prefs=Dataset.from_list(rows(0, 30)), test_prefs=Dataset.from_list(rows(30, 40))
    )
    mapping = {"train": rows(0, 30), "test": pl.DataFrame(rows(30, 40))}

    for at, some in enumerate((dictionary, mapping)):
        built = prefdata.build(some, tokenizer=str(tiny), out=tmp_path / f"out{at}")
        assert built.content_hash == plain.content_hash
        assert list(built.manifest.splits) == list(plain.manifest.splits)


def test_the_same_rows_again_are_the_build_that_is_there(tiny: Path, tmp_path: Path) -> None:
    first = prefdata.build(rows(), tokenizer=str(tiny), out=tmp_path / "out")
    again = prefdata.build(rows(), tokenizer=str(tiny), out=tmp_path / "out")

    assert again.manifest.hash == first.manifest.hash
    with pytest.raises(PrefdataError, match=r"E142"):
        prefdata.build(rows(1), tokenizer=str(tiny), out=tmp_path / "out")


def test_a_build_returns_the_rows_it_was_made_of(tiny: Path, tmp_path: Path) -> None:
    built = prefdata.build(rows(), tokenizer=str(tiny), out=tmp_path / "out", test_fraction=0.0)
    again = prefdata.build(
        built.dataset("train"), tokenizer=str(tiny), out=tmp_path / "again", test_fraction=0.0
    )

    assert again.content_hash == built.content_hash


def test_settings_are_those_of_a_config(tiny: Path, tmp_path: Path) -> None:
    built = prefdata.build(
        rows(), tokenizer=str(tiny), out=str(tmp_path / "out"), test_fraction=0.25, seed=3
    )

    assert built.manifest.config["seed"] == 3
    with pytest.raises(PrefdataError, match=r"sede: no such key; did you mean 'seed'.*C101"):
        prefdata.build(rows(), tokenizer=str(tiny), out=tmp_path / "b", sede=3)
    config = prefdata.BuildConfig(inputs=["x"], tokenizer="t", out=tmp_path)
    with pytest.raises(PrefdataError, match=r"seed is given twice.*C102"):
        prefdata.build(config, seed=3)


def test_rows_are_validated_under_a_plain_name() -> None:
    bad = [*rows(), {"prompt": "x", "chosen": "y", "rejected": "y"}, {**rows()[0], "prompt": None}]
    report = prefdata.validate(bad)

    assert report.inputs[0].name == "rows.jsonl"
    assert report.lines.lines == 42
    assert {place.source for one in report.findings for place in one.examples} == {"rows.jsonl"}


@pytest.mark.parametrize("value", [float("nan"), "\ud800", "a\0b", 10**400])
def test_what_a_file_may_not_hold_memory_may_not_either(value: Any) -> None:
    """Rows pass the same checks as those of a file: the row is refused, not changed."""
    odd = {**rows()[0], "prompt": value if isinstance(value, str) else "x", "score_chosen": value}
    report = prefdata.validate([*rows(1), odd])

    assert report.lines.kept == 39
    assert report.lines.rejected == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (7, "rows: is a int, which contains no rows"),
        (b"a.jsonl", "contains no rows"),
        ([*rows(0, 2), ["x"]], r"rows\[3\]: is a list"),
        ([{"prompt": object()}], r"rows\[1\]: cannot be written as JSON: it contains a object"),
        ({"train": rows(), "test": ["b.jsonl"]}, "rows for another"),
        ({"train": rows(), "test": 3.5}, "test: is a float"),
    ],
)
def test_a_value_that_is_not_rows_is_refused_with_its_place(data: Any, said: str) -> None:
    with pytest.raises(PrefdataError, match=rf"{said}.*E106"):
        prefdata.validate(data)


def test_two_splits_of_one_kind_are_an_error() -> None:
    with pytest.raises(PrefdataError, match=r"train_prefs, train_sft.*E213"):
        prefdata.validate({"train_prefs": rows(), "train_sft": rows()})


def test_dates_are_the_same_text_as_in_a_table() -> None:
    dated = [{**row, "day": date(2024, 5, 1)} for row in rows()]
    lines = prefdata.validate(dated).inputs[0].reading.not_read
    table = prefdata.validate(pl.DataFrame(dated)).inputs[0].reading.not_read

    assert [(one.name, one.example) for one in lines] == [(one.name, one.example) for one in table]


def test_no_rows_are_no_rows(tiny: Path, tmp_path: Path) -> None:
    for nothing in (Dataset.from_list([]), iter(()), pl.DataFrame({"prompt": []})):
        with pytest.raises(PrefdataError, match="E120"):
            prefdata.build(nothing, tokenizer=str(tiny), out=tmp_path / "out")
