"""Train and test never share a prompt, and rows that come or go move no other."""

from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from prefdata.read import Limits, Pairing, expand_inputs, load_layout, read_file
from prefdata.split import split_groups


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Two pairs of each of 2,000 prompts."""
    path: Path = tmp_path_factory.mktemp("split") / "pairs.jsonl"
    rows = [{"prompt": f"q{n // 2}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(4000)]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    (file,) = expand_inputs([str(path)])
    layout = load_layout("trl-std-explicit")
    return read_file(file, layout=layout, pairing=Pairing(), limits=Limits()).records


def lines(table: pa.Table) -> set[int]:
    return set(table["line"].to_pylist())


def test_no_prompt_is_in_both(records: pa.Table) -> None:
    train, test = split_groups(records, test_fraction=0.1, seed=0)

    assert not set(train["group_id"].to_pylist()) & set(test["group_id"].to_pylist())
    assert len(lines(train)) + len(lines(test)) == 4000
    assert 0.07 < test.num_rows / 4000 < 0.13


def test_rows_that_go_or_move_change_no_others_side(records: pa.Table) -> None:
    _, test = split_groups(records, test_fraction=0.1, seed=0)
    some = records.take(list(range(3999, 0, -3)))

    _, test_of_some = split_groups(some, test_fraction=0.1, seed=0)

    assert lines(test_of_some) == lines(test) & lines(some)


def test_a_larger_fraction_only_adds(records: pa.Table) -> None:
    _, few = split_groups(records, test_fraction=0.1, seed=0)
    _, more = split_groups(records, test_fraction=0.2, seed=0)

    assert lines(few) < lines(more)


def test_the_seed_draws_another_test_set(records: pa.Table) -> None:
    _, first = split_groups(records, test_fraction=0.1, seed=0)
    _, again = split_groups(records, test_fraction=0.1, seed=0)
    _, other = split_groups(records, test_fraction=0.1, seed=1)

    assert first.equals(again)
    assert lines(first) != lines(other)


@pytest.mark.parametrize(("fraction", "num_test"), [(0.0, 0), (1.0, 4000)])
def test_the_ends_are_none_and_all(records: pa.Table, fraction: float, num_test: int) -> None:
    assert split_groups(records, test_fraction=fraction, seed=0)[1].num_rows == num_test
