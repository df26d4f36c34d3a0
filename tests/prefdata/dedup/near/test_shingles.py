"""Shingles equal those of a reference implementation in every script, and stay the same."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefdata.arrow import take
from prefdata.dedup.near import BARRIER, SketchOptions, make_sketch
from prefdata.dedup.near.shingles import overlap, shingle_sets
from tests.prefdata.dedup.near.oracle import jaccard, shingles

words = st.sampled_from(
    ["the", "The", "cat", "Ça", "ÉTÉ", "e\u0301te\u0301", "日本", "ไทย", "x2", "…", "’s", "-"]
)
texts = st.lists(st.lists(words, max_size=12).map(" ".join), min_size=1, max_size=8)
anything = st.lists(st.text(max_size=40).map(lambda text: text.replace(BARRIER, " ")), min_size=1)


def sets_of(rows: list[str], num_words: int = 5) -> list[frozenset[int]]:
    sets = shingle_sets(pl.Series(rows, dtype=pl.String), num_words=num_words)
    return [frozenset(sets.row(number).tolist()) for number in range(len(rows))]


def similarity(a: str, b: str, num_words: int = 5) -> float:
    first, second = sets_of([a, b], num_words)
    return len(first & second) / max(len(first | second), 1)


@given(rows=texts, num_words=st.integers(1, 6))
def test_sets_are_as_large_and_as_similar_as_sets_of_tuples(
    rows: list[str], num_words: int
) -> None:
    found, expected = sets_of(rows, num_words), [shingles(row, num_words) for row in rows]

    assert [len(one) for one in found] == [len(one) for one in expected]
    for a in range(len(rows)):
        same = len(found[0] & found[a]) / max(len(found[0] | found[a]), 1)
        assert same == jaccard(expected[0], expected[a])


@given(rows=anything)
def test_a_set_depends_only_on_its_text(rows: list[str]) -> None:
    assert sets_of(rows) == [sets_of([row])[0] for row in rows]


@given(rows=texts)
def test_overlap_counts_common_shingles(rows: list[str]) -> None:
    sets = shingle_sets(pl.Series(rows), num_words=2)
    forth, back = np.arange(len(rows)), np.arange(len(rows))[::-1].copy()
    each = sets_of(rows, 2)

    found = overlap(take(sets, forth), take(sets, back))

    assert found.tolist() == [len(each[a] & each[b]) for a, b in zip(forth, back, strict=True)]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Hello, World!", "hello world"),
        ("e\u0301te\u0301", "ÉTÉ"),
        ("ΣΊΣΥΦΟΣ", "Σίσυφος"),
        ("it’s “so”", "it s so"),
        ("日本語のテキスト", "日本語、のテキスト。"),
        ("a\x00b\u2028c\ud7ff", "a b c"),
    ],
)
def test_texts_that_differ_only_in_case_forms_or_marks_are_equal(a: str, b: str) -> None:
    assert similarity(a, b) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("one two", "one two three"),
        ("one two", "two one"),
        ("a b", "ab"),
        ("हिन्दी", "हन्द"),
        ("1 2", "12"),
    ],
)
def test_other_short_texts_are_not(a: str, b: str) -> None:
    assert similarity(a, b) == 0


def test_a_text_without_words_has_no_shingles() -> None:
    assert [len(one) for one in sets_of(["", " ", "…!?", "🙂", "a"])] == [0, 0, 0, 0, 1]


def test_characters_are_words_in_scripts_without_spaces() -> None:
    assert len(sets_of(["日本語のテキスト"])[0]) == 8 - 4
    assert len(sets_of(["the 日本語 text and more"])[0]) == 7 - 4


def test_no_shingle_crosses_a_barrier_or_equals_one_of_another_side() -> None:
    whole, spaced, swapped = sets_of(
        ["a b c d", f"a b{BARRIER}c d", f"c d{BARRIER}a b"], num_words=2
    )

    assert (len(whole), len(spaced), len(swapped)) == (3, 2, 2)
    assert len(whole & spaced) == 1
    assert not spaced & swapped


def test_a_huge_word_takes_bounded_work() -> None:
    long = "x" * 1_000_000

    assert 1 <= len(sets_of([long, long + "y"])[1]) <= 6
    assert similarity("y" * 64 + " z", "y" * 64 + "z") == 1  # cut after 64 bytes


GOLDEN = {
    "The quick brown fox jumps over the lazy dog.": [
        "0x2968b476106e6",
        "0x915268a213985",
        "0x9ad3ed1e7cdc6",
        "0xb65a4a9bc4fa5",
        "0xf4c69dd05141a",
    ],
    "naïve": ["0x79e2ed9ae7e23"],
    "日本語の文": ["0xc9ef4eb73686d"],
    f"yes{BARRIER}no": ["0x3d60b05aaad4b", "0xd66c62f3ec83c"],
}


@pytest.mark.parametrize("seed", ["0", "1"])
def test_shingles_equal_the_golden_ones_in_every_process(seed: str) -> None:
    script = (
        "import sys, json, polars as pl; from prefdata.dedup.near.shingles import shingle_sets\n"
        "sets = [shingle_sets(pl.Series([t]), num_words=5) for t in json.loads(sys.argv[1])]\n"
        "print(json.dumps([[hex(n) for n in s.values.tolist()] for s in sets]))"
    )
    command = [sys.executable, "-c", script, json.dumps(list(GOLDEN))]
    env = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, check=True, capture_output=True, env=env)

    assert json.loads(done.stdout) == list(GOLDEN.values())


def test_keys_equal_the_golden_ones() -> None:
    sketch = make_sketch(pl.Series(list(GOLDEN)), SketchOptions())

    assert [hex(key) for key in (int(band[0]) for band in sketch.keys[:3])] == [
        "0x80c8530cbc2f14a6",
        "0xa41188abc01f6d82",
        "0x68088fabc94e912f",
    ]
