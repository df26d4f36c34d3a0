"""Exact duplicates and contradictions, on keys and in a build."""

import json
from collections.abc import Callable
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import prefdata
from prefdata.config import make_config
from prefdata.dedup import find_contradictions, find_copies
from prefdata.read import expand_inputs, load_layout
from prefdata.records.keys import KEY_COLUMNS, keys_of
from prefdata.records.schema import DUPLICATES
from tests.prefdata.read.rows import read_file

Pairs = list[tuple[str, str, str]]
KeysOf = Callable[[Pairs], pl.DataFrame]
fixture_in_given = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
word = st.sampled_from("abc")
pair_lists = st.lists(st.tuples(word, word, word), min_size=1, max_size=12)


def write_pairs(path: Path, pairs: Pairs) -> Path:
    names = ("prompt", "chosen", "rejected")
    rows = [dict(zip(names, pair, strict=True)) for pair in pairs]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


@pytest.fixture
def keys_for(tmp_path: Path) -> KeysOf:
    def read(pairs: Pairs) -> pl.DataFrame:
        (file,) = expand_inputs([str(write_pairs(tmp_path / "pairs.jsonl", pairs))])
        layout = load_layout("trl-std-explicit")
        rows = read_file(
            file,
            layout=layout,
        )
        return keys_of(rows.records)

    return read


def test_the_first_copy_is_kept(keys_for: KeysOf) -> None:
    keys = keys_for([("q", "a", "b"), ("q", "a", "c"), ("q", "a", "b"), ("q", "a", "b")])

    copies = find_copies(keys)

    assert copies["at"].to_list() == [2, 3]
    assert copies["kept"].to_list() == [0, 0]


@fixture_in_given
@given(pairs=pair_lists)
def test_dedup_twice_is_dedup_once(keys_for: KeysOf, pairs: Pairs) -> None:
    keys = keys_for(pairs)

    once = keys.with_row_index("at").join(find_copies(keys), on="at", how="anti").drop("at")

    assert len(once) == len(set(pairs))
    assert find_copies(once).is_empty()


def by_hand(pairs: Pairs) -> list[int]:
    known = set(pairs)
    return [n for n, (p, c, r) in enumerate(pairs) if (p, r, c) in known and c != r]


@fixture_in_given
@given(pairs=pair_lists)
def test_all_sides_of_a_contradiction_are_found(keys_for: KeysOf, pairs: Pairs) -> None:
    pairs = [(p, c, r) for p, c, r in pairs if c != r]
    keys = keys_for(pairs) if pairs else pl.DataFrame(schema=KEY_COLUMNS)

    assert find_contradictions(keys).to_list() == by_hand(pairs)


def test_no_rows_give_no_rows() -> None:
    none = pl.DataFrame(schema=KEY_COLUMNS)

    assert find_copies(none).is_empty()
    assert find_contradictions(none).is_empty()


def test_a_build_reports_the_outcome_of_each_row(tiny: Path, tmp_path: Path) -> None:
    pairs = [("p", "b", "a"), ("q", "a", "b"), ("q", "a", "c"), ("p", "a", "b"), ("q", "a", "b")]
    pairs += [(f"prompt {n}", "yes", "no") for n in range(20)]
    rows = write_pairs(tmp_path / "pairs.jsonl", pairs)
    values = {"inputs": [str(rows)], "tokenizer": str(tiny), "out": tmp_path / "out"}

    build = prefdata.build(make_config(values, place="test"))
    refused, copies = (
        build.rejected().to_pylist(),
        parquet.read_table(build.file("duplicates.parquet")),
    )

    assert [(row["line"], row["ordinal"], row["code"]) for row in refused] == [
        (1, 0, "PD403"),
        (4, 0, "PD403"),
    ]
    assert orjson.loads(refused[1]["pair"])["chosen"][0]["content"] == "a"
    assert copies.schema == DUPLICATES
    (copy,) = copies.to_pylist()
    assert (copy["line"], copy["kept_line"], copy["similarity"]) == (5, 2, 1.0)
    assert copy["source"] == copy["kept_source"] == rows.name
    ids = {row["pair_id"] for split in build.splits for row in build.tokens(split).to_pylist()}
    assert copy["pair_id"] in ids
    lines = build.manifest.lines
    assert (lines.lines, lines.kept, lines.duplicates, lines.rejected) == (25, 22, 1, 2)
    report = json.loads(build.file("report.json").read_bytes())
    assert [(f["code"], f["count"]) for f in report["findings"]] == [
        ("PD403", 2),
        ("PD407", 20),
        ("PD401", 1),
    ]
