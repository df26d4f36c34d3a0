"""A bucket has each row of its keys once, whatever the parts, and clusters are those of one set."""

import random
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdata.dedup.near import SketchOptions, cluster, find_pairs, make_sketch
from prefdata.dedup.near.bands import clusters_of, find_clusters, store_sketch
from prefdata.engine import Workers, exchange
from prefdata.engine.exchange import (
    EVERYTHING,
    KEY,
    Bucket,
    Parts,
    cut_buckets,
    cut_rows,
    find_keys,
    read_bucket,
    read_lanes,
    read_parts,
    write_parts,
    write_run,
)
from prefdata.store.staging import stage_bytes, stage_table

KEYS = st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), min_size=1, max_size=4)


def run_of(keys: list[int]) -> pl.DataFrame:
    return pl.DataFrame({KEY: keys, "row": range(len(keys))}, {KEY: pl.UInt64, "row": pl.UInt32})


@given(parts=KEYS, rows=st.integers(0, 9))
def test_each_row_is_in_the_bucket_of_its_key(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], rows: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    paths = [folder / f"{number}.arrow" for number in range(len(parts))]
    for path, keys in zip(paths, parts, strict=True):
        write_run(path, run_of(keys))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "BUCKET_ROWS", 3)
        buckets = cut_buckets(rows)
    found = [read_bucket(paths, bucket)[KEY].to_list() for bucket in buckets]

    assert sorted(chain.from_iterable(found)) == sorted(chain.from_iterable(parts))
    for bucket, keys in zip(buckets, found, strict=True):
        assert all(bucket.first <= key <= bucket.last for key in keys)


def test_rows_that_are_not_asked_for_are_dropped_run_by_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard of a split with few pairs covers a range with nearly all rows."""
    paths = [tmp_path / f"{number}.arrow" for number in range(5)]
    for path in paths:
        write_run(path, run_of(list(range(100))))
    held: list[int] = []
    concat = pl.concat

    def see(frames: list[pl.DataFrame], *, rechunk: bool) -> pl.DataFrame:
        held.append(sum(map(len, frames)))
        return concat(frames, rechunk=rechunk)

    monkeypatch.setattr(pl, "concat", see)
    found = read_bucket(paths, Bucket(10, 99), pl.col("row") == 50)

    assert found.rows() == [(50, 50)] * 5
    assert held == [5]
    assert read_bucket(paths, Bucket(0, 5), pl.col("row") == 50).columns == [KEY, "row"]


def test_ranges_of_rows_have_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BUCKET_ROWS", 3)

    assert [tuple(rows) for rows in cut_rows(7)] == [(0, 2), (3, 5), (6, 6)]
    assert list(cut_rows(0)) == []


def test_lanes_have_keys_of_their_own_and_places_become_rows(tmp_path: Path) -> None:
    path = tmp_path / "run.arrow"
    write_run(path, run_of([5, 1]), run_of([7, 8, 0]))

    one, other = read_lanes([path, path], EVERYTHING, range(2), np.array([0, 10]))

    assert one.keys.tolist() == [1, 5] * 2
    assert other.keys.tolist() == [0, 7, 8] * 2
    assert other.rows.tolist() == [2, 0, 1, 12, 10, 11]


def test_keys_are_found_in_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run.arrow"
    write_run(path, run_of([30, 10, 20]))

    known, rows = find_keys(path, np.array([20, 5, 30, 40], np.uint64))

    assert known.tolist() == [True, False, True, False]
    assert rows["row"].to_list() == [2, 0]


def near_texts(seed: int) -> list[str]:
    """Return texts of which many are copies, or copies with a word changed."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(400)]
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(25)]
    for _ in range(60):
        edited = draw.choice(texts).split()
        if draw.random() < 0.4:
            edited[draw.randrange(len(edited))] = draw.choice(words)
        texts.append(" ".join(edited))
    draw.shuffle(texts)
    return [*texts, "", "!"]


@pytest.mark.parametrize(
    ("seed", "size", "rows"), [(0, 87, 9**9), (1, 10, 2), (2, 30, 5), (3, 7, 1)]
)
def test_clusters_of_buckets_are_those_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, size: int, rows: int
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_ROWS", rows)
    texts, options = pl.Series(near_texts(seed)), SketchOptions()
    expected = cluster(len(texts), find_pairs([make_sketch(texts, options)], threshold=0.7))
    groups = np.random.default_rng(seed).integers(0, 2**63, len(texts)).astype(np.uint64)
    names, ends = [], []
    for start in range(0, len(texts), size):
        some = slice(start, start + size)
        table, run = store_sketch(make_sketch(texts[some], options), groups[some])
        write_part(tmp_path, f"p{start:05d}", table, run)
        names.append(f"p{start:05d}")
        ends.append(min(start + size, len(texts)))
    sources = np.zeros(len(names), np.int32)
    write_parts(Parts(tmp_path, tuple(names), sources, np.array(ends)))

    with Workers(1) as workers:
        bands = options.num_bands
        find_clusters(tmp_path, "prompt", threshold=0.7, num_bands=bands, workers=workers)
    found = [clusters_of(read_parts(tmp_path), part, "prompt") for part in range(len(names))]

    labels = np.concatenate([one.labels for one in found])
    least = np.concatenate([one.least for one in found])
    assert labels.tolist() == expected.tolist()
    assert len(set(labels.tolist())) < len(texts) - 10
    for label in set(labels.tolist()):
        assert set(least[labels == label].tolist()) == {groups[labels == label].min()}


def write_part(root: Path, name: str, table: pa.Table, run: pa.Buffer) -> None:
    stage_table(exchange.part_path(root, name, "near-prompt"), table)
    stage_bytes(exchange.part_path(root, name, "bands-prompt"), memoryview(run))
