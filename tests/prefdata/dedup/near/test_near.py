"""Near-duplicates are found, no others are, and the result depends only on the texts."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdata.dedup.near import (
    Sketch,
    SketchOptions,
    choose,
    cluster,
    find_pairs,
    make_sketch,
    open_sketch,
    sketch_table,
)
from prefdata.dedup.near.overlap import Pairs, Rows, SetStore
from prefdata.dedup.near.pairs import MAX_NEIGHBORS, Forest, join_buckets
from prefdata.hashing import Numbers
from tests.prefdata.dedup.near.oracle import all_pairs, jaccard, read_hh, shingles
from tests.real_data import HH_SAMPLE, HH_WHOLE

THRESHOLD = 0.7
VOCABULARY = [f"w{number}" for number in range(3000)]


def sketch(texts: Sequence[str], **options: float) -> Sketch:
    return make_sketch(pl.Series(list(texts), dtype=pl.String), SketchOptions(**options))  # type: ignore[arg-type]


def clusters_of(texts: Sequence[str], *, parts: int = 1) -> list[int]:
    size = -(-len(texts) // parts)
    sketches = [sketch(texts[start : start + size]) for start in range(0, len(texts), size)]
    return cluster(len(texts), find_pairs(sketches, threshold=THRESHOLD)).tolist()


def as_sets(labels: Sequence[int], names: Sequence[object]) -> set[frozenset[object]]:
    """Return clusters as sets of the names of their rows."""
    found: dict[int, list[object]] = {}
    for label, name in zip(labels, names, strict=True):
        found.setdefault(label, []).append(name)
    return {frozenset(members) for members in found.values()}


def grown(seed: int, num_texts: int, copies: int) -> list[str]:
    """Generate random texts, and copies with up to three words changed."""
    draw = random.Random(seed)
    texts = []
    for _ in range(num_texts):
        words = draw.choices(VOCABULARY, k=draw.randint(3, 80))
        for _ in range(copies):
            edited = list(words)
            for _ in range(draw.randint(0, 3)):
                edited[draw.randrange(len(edited))] = draw.choice(VOCABULARY)
            texts.append(" ".join(edited))
    draw.shuffle(texts)
    return texts


def test_pairs_are_exact_and_few_are_missed() -> None:
    texts = grown(0, 300, 4)
    expected = all_pairs(texts, THRESHOLD)

    found = find_pairs([sketch(texts)], threshold=THRESHOLD)
    labels = cluster(len(texts), found)

    assert all(expected[a, b] == similarity for a, b, similarity in found.iter_rows())
    together = np.mean([labels[a] == labels[b] for a, b in expected])
    assert together >= 0.99


def test_keys_agree_as_often_as_the_curve_says() -> None:
    texts = grown(1, 400, 3)
    expected = all_pairs(texts, 0.3)
    keys = np.stack(sketch(texts).keys[1:])

    agreed = np.mean([(keys[:, a] == keys[:, b]).mean() for a, b in expected])

    assert abs(agreed - np.mean([s**4 for s in expected.values()])) < 0.03


def test_bands_are_as_few_as_the_recall_allows() -> None:
    for threshold, recall in itertools.product((0.5, 0.7, 0.9), (0.9, 0.98, 0.999)):
        bands = SketchOptions(threshold=threshold, recall=recall).num_bands
        missed = (1 - threshold**4) ** np.array([bands, bands - 1])
        assert missed[0] <= 1 - recall < missed[1]


@pytest.mark.parametrize(("path", "count"), [(HH_SAMPLE, 92), (HH_WHOLE, 562)], ids=["200", "all"])
def test_real_texts_have_the_pairs_that_exact_jaccard_finds(path: Path, count: int) -> None:
    if not path.exists():
        pytest.skip(f"{path.name} is not next to this checkout")
    texts = read_hh(path)
    expected = all_pairs(texts, THRESHOLD)

    found = find_pairs([sketch(texts)], threshold=THRESHOLD)
    labels = cluster(len(texts), found)

    assert len(expected) == count
    assert all(expected[a, b] == similarity for a, b, similarity in found.iter_rows())
    assert sum(labels[a] == labels[b] for a, b in expected) >= 0.985 * count


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), parts=st.integers(1, 7))
def test_neither_parts_nor_the_order_of_rows_change_a_cluster(seed: int, parts: int) -> None:
    texts = grown(seed, 8, 4)
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    moved = [texts[row] for row in order]

    here = as_sets(clusters_of(texts), range(len(texts)))

    assert as_sets(clusters_of(texts, parts=parts), range(len(texts))) == here
    assert as_sets(clusters_of(moved, parts=parts), order) == here


@given(texts=st.lists(st.text("ab 日é", max_size=8), min_size=1, max_size=12))
def test_equal_texts_are_clustered_and_wordless_ones_are_not(texts: list[str]) -> None:
    labels = clusters_of(texts)

    for a, b in itertools.combinations(range(len(texts)), 2):
        first, second = shingles(texts[a]), shingles(texts[b])
        if first == second:
            assert (labels[a] == labels[b]) == bool(first)


class CountingStore(SetStore):
    """A store that counts the pairs that it tests."""

    num_tested = 0

    def at_least(self, a: Rows, b: Rows, threshold: float) -> Pairs:
        self.num_tested += len(a)
        return super().at_least(a, b, threshold)


def proposed(made: Sketch, keys: Numbers) -> tuple[int, list[int]]:
    """Return the number of pairs that a band proposes, and the resulting clusters."""
    shelf, rows = CountingStore([made]), np.arange(len(keys))
    forest = Forest(len(keys))
    order = np.argsort(keys, kind="stable")
    join_buckets(shelf, forest, rows[order], keys[order], THRESHOLD)
    return shelf.num_tested, forest.labels().tolist()


def test_ten_thousand_texts_that_are_near_each_other_cost_one_comparison_each() -> None:
    boilerplate = " ".join(f"w{number}" for number in range(100))
    made = sketch([f"{boilerplate} x{number}" for number in range(10_000)])

    num_proposed, labels = proposed(made, np.zeros(10_000, np.uint64))

    assert set(labels) == {0}
    assert num_proposed < 10_000
    assert len(find_pairs([made], threshold=THRESHOLD)) < 2 * 10_000


def test_a_bucket_without_near_texts_is_compared_up_to_max_neighbors() -> None:
    made = sketch([f"text {number} is like none of the others {number}" for number in range(600)])

    num_proposed, labels = proposed(made, np.zeros(600, np.uint64))

    assert labels == list(range(600))
    assert num_proposed == sum(600 - distance for distance in range(1, MAX_NEIGHBORS + 1))


def test_a_written_sketch_is_the_one_that_was_made(tmp_path: Path) -> None:
    made = sketch(["a b c d e f", "", "日本", *grown(0, 200, 4)])
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink:
        table = sketch_table(made)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    before = pa.total_allocated_bytes()
    opened = open_sketch(tmp_path / "s.arrow")

    assert pa.total_allocated_bytes() - before < made.sets.values.nbytes / 4, "it is mapped"

    assert opened.sets.values.tolist() == made.sets.values.tolist()
    assert opened.sets.offsets.tolist() == made.sets.offsets.tolist()
    assert [one.tolist() for one in opened.keys] == [one.tolist() for one in made.keys]


def test_no_texts_give_no_pairs() -> None:
    assert find_pairs([], threshold=THRESHOLD).is_empty()
    assert find_pairs([sketch([])], threshold=THRESHOLD).is_empty()
    assert cluster(0, find_pairs([], threshold=THRESHOLD)).tolist() == []


def test_the_earliest_row_is_kept_or_the_first_by_rank() -> None:
    words = [f"w{number}" for number in range(60)]
    texts = [" ".join(words), "another one", " ".join([*words, "x"]), " ".join([*words, "x", "y"])]
    made = sketch(texts)
    labels, sets = cluster(4, find_pairs([made], threshold=THRESHOLD)), SetStore([made])

    earliest = choose(labels, sets)
    longest = choose(labels, sets, pl.DataFrame({"shortness": [-len(text) for text in texts]}))

    assert earliest["row"].to_list() == [2, 3]
    assert earliest["kept"].to_list() == [0, 0]
    assert longest["row"].to_list() == [0, 2]
    assert longest["kept"].to_list() == [3, 3]
    own = [shingles(text) for text in texts]
    assert longest["similarity"].to_list() == [jaccard(own[0], own[3]), jaccard(own[2], own[3])]


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), threshold=st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_no_similar_pair_is_ruled_out_by_sizes_or_parities(seed: int, threshold: float) -> None:
    texts = grown(seed, 6, 4)
    a, b = np.triu_indices(len(texts), 1)

    found = SetStore([sketch(texts)]).at_least(a, b, threshold)

    pairs = zip(found.a.tolist(), found.b.tolist(), strict=True)
    expected = all_pairs(texts, threshold)
    assert dict(zip(pairs, found.similarity.tolist(), strict=True)) == expected
