"""Pairs that two splits share are found before copies are dropped, and kept in only one split."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdata.errors import EmptyError
from prefdata.records.split_names import rank_of
from prefdata.report.model import Report
from prefdata.store.reader import Build
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.dedup.near.oracle import jaccard, shingles
from tests.prefdata.split_files import Row, ask, asks, build_of, codes_of, write_files

Files = dict[str, list[Row]]
OTHERS = [ask(f"something else {n}") for n in range(4)]
EGG = "How do I boil a very fresh egg without breaking its shell in the pan"
EGG_TOO = "how do I boil a very fresh egg without breaking its shell in the pan?"
LONG = "Answer in the style of a pirate who has read all of Kant and is tired of it"


# Files, and the code of each dropped row.
LEAKS: dict[str, tuple[Files, dict[str, str]]] = {
    "the same pair": (
        {"train.jsonl": [*OTHERS, ask("q")], "test.jsonl": [ask("q")]},
        {"train.jsonl:5": "PD505"},
    ),
    "the same pair, test first": (
        {"test.jsonl": [ask("q")], "train.jsonl": [ask("q"), *OTHERS]},
        {"train.jsonl:1": "PD505"},
    ),
    "the same prompt": (
        {"train.jsonl": [*OTHERS, ask("q", "a")], "test.jsonl": [ask("q", "b")]},
        {"train.jsonl:5": "PD501"},
    ),
    "a prompt that is nearly the same": (
        {"train.jsonl": [*OTHERS, ask(EGG)], "test.jsonl": [ask(EGG_TOO)]},
        {"train.jsonl:5": "PD502"},
    ),
    "each kind once": (
        {"train.jsonl": [ask("q"), ask("r", "x"), ask(EGG), *OTHERS],
         "test.jsonl": [ask("q"), ask("r"), ask(EGG_TOO)]},
        {"train.jsonl:1": "PD505", "train.jsonl:2": "PD501", "train.jsonl:3": "PD502"},
    ),
    "twice in train": (
        {"train.jsonl": [ask("q"), ask("q"), *OTHERS], "test.jsonl": [ask("q")]},
        {"train.jsonl:1": "PD505", "train.jsonl:2": "PD505"},
    ),
    "with the labels the other way": (
        {"train.jsonl": [ask("q", "a", "b"), *OTHERS], "test.jsonl": [ask("q", "b", "a")]},
        {"train.jsonl:1": "PD501"},
    ),
    "train gives way to validation, and that to test": (
        {"train.jsonl": [ask("v"), ask("t"), *OTHERS], "dev.jsonl": [ask("v"), ask("t"), ask("d")],
         "test.jsonl": [ask("t")]},
        {"train.jsonl:1": "PD505", "train.jsonl:2": "PD505", "dev.jsonl:2": "PD505"},
    ),
    "validation gives way to eval, and that to test": (
        {"test.jsonl": [ask("t")], "eval.jsonl": [ask("t"), ask("e")], "train.jsonl": OTHERS,
         "val.jsonl": [ask("e"), ask("v")]},
        {"eval.jsonl:1": "PD505", "val.jsonl:1": "PD505"},
    ),
    "names with shards": (
        {"train_prefs-00000-of-00001.jsonl": [*OTHERS, ask("q")],
         "test_prefs-00000-of-00001.jsonl": [ask("q")]},
        {"train_prefs-00000-of-00001.jsonl:5": "PD505"},
    ),
    "folders": (
        {"train/a.jsonl": [*OTHERS, ask("q", "a")], "test/b.jsonl": [ask("q")]},
        {"a.jsonl:5": "PD501"},
    ),
    "a column": (
        {"a.jsonl": [ask("q", split="train"), ask("q", split="test"), ask("r", split="train")]},
        {"a.jsonl:1": "PD505"},
    ),
    "a chain of near prompts": (
        {"train.jsonl": [ask(f"{LONG} one"), *OTHERS], "more.jsonl": [ask(f"{LONG} one two")],
         "test.jsonl": [ask(f"{LONG} one two three")]},
        {"train.jsonl:1": "PD502", "more.jsonl:1": "PD502"},
    ),
}  # fmt: skip
# Files that share nothing across splits; a pair that is twice in one split is a copy there.
NO_LEAKS: dict[str, tuple[Files, int]] = {
    "nothing": ({"train.jsonl": OTHERS, "test.jsonl": [ask("q")]}, 0),
    "copies in train": ({"train.jsonl": [*OTHERS, *OTHERS], "test.jsonl": [ask("q")]}, 4),
    "copies in test": ({"train.jsonl": OTHERS, "test.jsonl": [ask("q"), ask("q")]}, 1),
    "equal answers": ({"train.jsonl": [ask("p", "a", "b")], "test.jsonl": [ask("q", "a", "b")]}, 0),
    "a refused row in test": (
        {"train.jsonl": [ask("q")], "test.jsonl": [ask("q", "same", "same"), ask("r")]}, 0
    ),
}  # fmt: skip


def counts_of(report: Report) -> Counter[str]:
    leaks = ("PD501", "PD502", "PD505")
    return Counter({f.code: f.count for f in report.findings if f.code in leaks})


def require_whole(build: Build) -> None:
    """Assert that every line is kept or found again, for each file and in total."""
    for item in [*build.manifest.inputs]:
        lines = item.lines
        assert lines.lines == lines.kept + lines.duplicates + lines.filtered + lines.rejected
    funnel = build.manifest.funnel
    assert all(s.rows_in == s.rows_out + sum(s.dropped.values()) for s in funnel)
    assert all(a.rows_out == b.rows_in for a, b in pairwise(funnel))
    rejected = build.manifest.lines.rejected
    assert build.rejected().num_rows == rejected


@pytest.mark.parametrize("case", LEAKS)
def test_what_two_splits_share_stays_in_one(case: str, tiny: Path, tmp_path: Path) -> None:
    files, wanted = LEAKS[case]
    names = write_files(tmp_path, files)

    made = build_of(names, tiny, tmp_path / "out")
    seen = validate(names)

    assert codes_of(made) == wanted
    assert counts_of(seen) == Counter(wanted.values())
    named = {f"{Path(e.source).name}:{e.line}" for f in seen.findings if f.code in wanted.values()
             for e in f.examples}  # fmt: skip
    assert named == set(wanted)
    require_whole(made)
    assert made.manifest.lines == seen.lines


@pytest.mark.parametrize("case", NO_LEAKS)
def test_splits_that_share_nothing_lose_nothing(case: str, tiny: Path, tmp_path: Path) -> None:
    files, copies = NO_LEAKS[case]

    made = build_of(write_files(tmp_path, files), tiny, tmp_path / "out")

    assert not set(codes_of(made).values()) & {"PD501", "PD502", "PD505"}
    assert made.manifest.lines.duplicates == copies
    require_whole(made)


def test_a_message_names_the_row_that_keeps_it(tiny: Path, tmp_path: Path) -> None:
    files = {
        "train.jsonl": [*OTHERS, ask("q")],
        "dev.jsonl": asks("q"),
        "test.jsonl": asks("z", "q"),
    }
    names = write_files(tmp_path, files)

    rejected = build_of(names, tiny, tmp_path / "out").rejected().to_pylist()

    place = f"is in test: {Path(names[2]).name}:2"
    assert [row["message"] for row in rejected] == [
        f"pair_in_two_splits: the same pair {place}"
    ] * 2


def test_report_keeps_what_splits_share(tiny: Path, tmp_path: Path) -> None:
    files = {"train.jsonl": [*OTHERS, ask("q"), ask("r", "x"), ask(EGG)],
             "test.jsonl": [ask("q"), ask("r"), ask(EGG_TOO)]}  # fmt: skip
    names = write_files(tmp_path, files)

    made = build_of(names, tiny, tmp_path / "out", leaks="report")
    report = Report.model_validate_json(made.file("report.json").read_bytes())

    assert {split: seal.rows for split, seal in made.splits.items()} == {"train": 7, "test": 3}
    assert counts_of(report) == {"PD505": 1, "PD501": 1, "PD502": 1}
    assert {f.severity for f in report.findings if f.code.startswith("PD50")} == {"W"}
    assert report.split_proof is not None
    assert report.split_proof.leaked == 3


def test_refuse_builds_nothing_and_says_how_much(tiny: Path, tmp_path: Path) -> None:
    files = {"train.jsonl": [*OTHERS, ask("q"), ask(EGG)], "test.jsonl": [ask("q"), ask(EGG_TOO)]}
    names = write_files(tmp_path, files)

    with pytest.raises(EmptyError, match="1 PD502, 1 PD505; drop them with") as caught:
        build_of(names, tiny, tmp_path / "out", leaks="refuse")
    assert caught.value.code == "E187"
    assert not (tmp_path / "out").exists()
    clean = write_files(tmp_path, {"train.jsonl": OTHERS})
    build_of([*clean, names[1]], tiny, tmp_path / "out", leaks="refuse")


@pytest.mark.parametrize(
    ("severity", "kept", "found"),
    [
        ({"PD502": "I"}, {EGG}, {"PD505": 1, "PD501": 1, "PD502": 1}),
        ({"PD502": "off"}, {EGG}, {"PD505": 1, "PD501": 1}),
        ({"PD505": "off"}, set(), {"PD501": 2, "PD502": 1}),
        ({"PD402": "off"}, {EGG}, {"PD505": 1, "PD501": 1}),
        ({"PD502": "E"}, set(), {"PD505": 1, "PD501": 1, "PD502": 1}),
    ],
)
def test_severity_decides_which_leaks_are_dropped(
    severity: dict[str, str], kept: set[str], found: dict[str, int], tiny: Path, tmp_path: Path
) -> None:
    files = {"train.jsonl": [*OTHERS, ask("q"), ask("r", "x"), ask(EGG)],
             "test.jsonl": [ask("q"), ask("r"), ask(EGG_TOO)]}  # fmt: skip
    names = write_files(tmp_path, files)

    made = build_of(names, tiny, tmp_path / "out", severity=severity)

    train = {row["prompt"][0]["content"] for row in made.text("train").to_pylist()}
    assert train == kept | {f"something else {n}" for n in range(4)}
    assert counts_of(validate(names, ValidateOptions(severity=severity))) == found


def test_a_train_split_that_would_be_gone_is_an_error(tiny: Path, tmp_path: Path) -> None:
    same = write_files(tmp_path, {"train.jsonl": asks("q", "r"), "test.jsonl": asks("r", "q")})
    shared = [f"{LONG} {n}" for n in range(60)]
    of_template = {"train.jsonl": asks(*shared[:40]), "test.jsonl": asks(*shared[40:])}

    with pytest.raises(EmptyError, match="all of its 2 pairs") as gone:
        build_of(same, tiny, tmp_path / "out")
    template = write_files(tmp_path / "t", of_template)
    with pytest.raises(EmptyError, match="40 of 40 pairs") as near:
        build_of(template, tiny, tmp_path / "out")
    made = build_of(template, tiny, tmp_path / "out", severity={"PD502": "I"})
    assert any("a build stops here" in note for note in validate(template).notes)

    assert (gone.value.code, near.value.code) == ("E189", "E188")
    assert made.splits["train"].rows == 40


def test_another_split_that_is_gone_has_a_note(tiny: Path, tmp_path: Path) -> None:
    files = {"train.jsonl": OTHERS, "dev.jsonl": asks("q"), "test.jsonl": asks("q")}
    files["eval.jsonl"] = [ask("q", "same", "same")]

    made = build_of(write_files(tmp_path, files), tiny, tmp_path / "out")
    report = Report.model_validate_json(made.file("report.json").read_bytes())

    assert set(made.splits) == {"train", "test"}
    note = "no pair of validation is left: all 1 are in another split (1 PD505)"
    assert note in report.notes
    assert any("no pair of eval is left: none of its rows" in note for note in report.notes)


WORDS = [f"w{n}" for n in range(40)]


def edited(draw: random.Random, prompt: list[str]) -> list[str]:
    words = list(prompt)
    for _ in range(draw.randint(0, 2)):
        words[draw.randrange(len(words))] = draw.choice(WORDS)
    return words


@st.composite
def split_files(draw: st.DrawFn) -> Files:
    """Draw files of several splits with many equal and near-duplicate prompts, in any order."""
    seed = random.Random(draw(st.integers(0, 10**6)))
    names = draw(
        st.lists(st.sampled_from(["train", "dev", "eval", "test", "rows"]), min_size=2, unique=True)
    )
    pool = [seed.choices(WORDS, k=seed.randint(3, 30)) for _ in range(10)]
    files = {}
    for name in names:
        prompts = [edited(seed, seed.choice(pool)) for _ in range(seed.randint(1, 12))]
        files[f"{name}.jsonl"] = [
            ask(" ".join(words), seed.choice(["a", "b"]), "c") for words in prompts
        ]
    files.setdefault("train-own.jsonl", asks(*(f"own {n} of train" for n in range(15))))
    return files


@settings(max_examples=12)
@given(files=split_files(), salt=st.integers(0, 2**40))
def test_no_prompt_nor_a_near_one_is_in_two_splits(
    files: Files, salt: int, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(f"s{salt}")
    names = write_files(folder, files)

    made = build_of(names, tiny, folder / "out")

    texts = {split: made.text(split).to_pylist() for split in made.splits}
    sets = {
        split: [shingles(row["prompt"][0]["content"]) for row in rows]
        for split, rows in texts.items()
    }
    for one in sets:
        for other in set(sets) - {one}:
            assert not [1 for a in sets[one] for b in sets[other] if jaccard(a, b) >= 0.7]
    require_whole(made)
    assert made.manifest.lines == validate(names).lines
    if made.manifest.inputs[0].split_from == "drawn":
        return
    last = max(made.splits, key=rank_of)
    file = next(f for f in files if rank_of(f.split(".")[0])[0] == rank_of(last)[0])
    kept = {(row["prompt"][0]["content"], row["chosen"][0]["content"]) for row in texts[last]}
    assert kept == {pair_of(row) for row in files[file]}, "the split that is measured is whole"


def pair_of(row: Any) -> tuple[str, str]:
    return row["prompt"][0]["content"], row["chosen"][0]["content"]
