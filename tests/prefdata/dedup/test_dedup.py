"""Exact duplicates and contradictions."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefdata.dedup import DUPLICATES, drop_contradictions, drop_duplicates
from prefdata.read import Limits, Pairing, expand_inputs, load_layout, read_file
from prefdata.records import RECORDS, REJECTED

RecordsOf = Callable[[list[tuple[str, str, str]]], pa.Table]
fixture_in_given = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def records_of(tmp_path: Path) -> RecordsOf:
    def read(pairs: list[tuple[str, str, str]]) -> pa.Table:
        path = tmp_path / "pairs.jsonl"
        names = ("prompt", "chosen", "rejected")
        rows = [dict(zip(names, pair, strict=True)) for pair in pairs]
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
        (file,) = expand_inputs([str(path)])
        layout = load_layout("trl-std-explicit")
        return read_file(file, layout=layout, pairing=Pairing(), limits=Limits()).records

    return read


word = st.sampled_from("abc")
pair_lists = st.lists(st.tuples(word, word, word), min_size=1, max_size=12)


def test_the_first_copy_stays_and_is_named(records_of: RecordsOf) -> None:
    records = records_of([("q", "a", "b"), ("q", "a", "c"), ("q", "a", "b"), ("q", "a", "b")])

    kept, copies = drop_duplicates(records)

    assert kept["line"].to_pylist() == [1, 2]
    assert copies.schema == DUPLICATES
    assert copies["line"].to_pylist() == [3, 4]
    assert copies["kept_line"].to_pylist() == [1, 1]
    assert copies["kept_source"][0] == records["source"][0]
    assert copies["similarity"].to_pylist() == [1.0, 1.0]


@fixture_in_given
@given(pairs=pair_lists)
def test_dedup_twice_is_dedup_once(
    records_of: RecordsOf, pairs: list[tuple[str, str, str]]
) -> None:
    records = records_of(pairs)

    once, copies = drop_duplicates(records)
    twice, none = drop_duplicates(once)

    assert once.equals(twice)
    assert none.num_rows == 0
    assert once.num_rows == len(set(pairs))
    assert once.num_rows + copies.num_rows == records.num_rows


@fixture_in_given
@given(pairs=pair_lists, seed=st.integers(0, 99))
def test_the_order_of_the_rows_given_changes_only_their_order(
    records_of: RecordsOf, pairs: list[tuple[str, str, str]], seed: int
) -> None:
    records = records_of(pairs)
    order = list(range(len(pairs)))
    random.Random(seed).shuffle(order)

    kept, copies = drop_duplicates(records)
    kept_shuffled, copies_shuffled = drop_duplicates(records.take(order))

    assert kept.equals(kept_shuffled.sort_by("line"))
    assert copies.equals(copies_shuffled)


def by_hand(pairs: list[tuple[str, str, str]]) -> list[int]:
    known = set(pairs)
    return [n for n, (p, c, r) in enumerate(pairs, 1) if (p, r, c) in known and c != r]


@fixture_in_given
@given(pairs=pair_lists)
def test_all_sides_of_a_contradiction_are_refused(
    records_of: RecordsOf, pairs: list[tuple[str, str, str]]
) -> None:
    pairs = [(p, c, r) for p, c, r in pairs if c != r]
    records = records_of(pairs) if pairs else pa.Table.from_batches([], schema=RECORDS)

    kept, refused = drop_contradictions(records)

    assert refused["line"].to_pylist() == by_hand(pairs)
    assert kept.num_rows + refused.num_rows == len(pairs)
    assert set(refused["code"].to_pylist()) <= {"PD403"}


def test_nothing_in_is_nothing_out() -> None:
    none = pa.Table.from_batches([], schema=RECORDS)

    assert [t.schema for t in drop_duplicates(none)] == [RECORDS, DUPLICATES]
    assert [t.schema for t in drop_contradictions(none)] == [RECORDS, REJECTED]


def test_a_lone_contradiction_keeps_its_place_and_its_pair(records_of: RecordsOf) -> None:
    records = records_of([("q", "a", "b"), ("p", "b", "a"), ("q", "b", "a")])

    kept, refused = drop_contradictions(records)

    rows: list[dict[str, Any]] = refused.to_pylist()
    assert [(row["line"], row["ordinal"]) for row in rows] == [(1, 0), (3, 0)]
    assert orjson.loads(rows[1]["raw"])["chosen"][0]["content"] == "b"
    assert kept["line"].to_pylist() == [2]
