"""Splits that the inputs came in are kept: by names, given, or by a column of the rows."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main
from prefdata.config import make_config
from prefdata.errors import PrefdataError
from prefdata.progress import Silent
from prefdata.store.staging import FOLDER
from prefdata.validation import validate
from tests.prefdata.split_files import Row, ask, asks, build_of, prompts_of, write_files

A, B, C, D = ([f"{name} {n}" for n in range(6)] for name in ("apple", "berry", "cherry", "date"))
Files = dict[str, list[Row]]
MANY = [f"number {n} of many" for n in range(300)]


def said(split: str | None, prompts: list[str], column: str = "split") -> list[Row]:
    return [ask(prompt, **({column: split} if split is not None else {})) for prompt in prompts]


# The files, the other settings, and the prompts of each split.
KEPT: dict[str, tuple[Files, dict[str, Any], dict[str, list[str]]]] = {
    "names": (
        {"train_prefs.jsonl": asks(*A), "test_prefs.jsonl": asks(*B)},
        {},
        {"train": A, "test": B},
    ),
    "three names, two files of one": (
        {"train-0.jsonl": asks(*A), "val.jsonl": asks(*B), "test.jsonl": asks(*C),
         "train-1.jsonl": asks(*D)},
        {},
        {"train": sorted(A + D), "validation": B, "test": C},
    ),
    "folders": (
        {"d/train/x.jsonl": asks(*A), "d/eval/x.jsonl": asks(*B)},
        {},
        {"train": A, "eval": B},
    ),
    "a file without a split": (
        {"rows.jsonl": asks(*A), "test.jsonl": asks(*B)},
        {},
        {"train": A, "test": B},
    ),
    "given": (
        {"a.jsonl": asks(*A), "b.jsonl": asks(*B)},
        {"inputs": {"train": ["a.jsonl"], "hard.cases": "b.jsonl"}},
        {"train": A, "hard.cases": B},
    ),
    "given against the name": (
        {"test.jsonl": asks(*A), "b.jsonl": asks(*B)},
        {"inputs": {"train": ["test.jsonl"], "test": ["b.jsonl"]}},
        {"train": A, "test": B},
    ),
    "some given, the rest by names": (
        {"a.jsonl": asks(*A), "dev.jsonl": asks(*B), "c.jsonl": asks(*C)},
        {"inputs": {"auto": ["a.jsonl", "dev.jsonl"], "test": ["c.jsonl"]}},
        {"train": A, "validation": B, "test": C},
    ),
    "only test": (
        {"a.jsonl": asks(*A)},
        {"inputs": {"test": ["a.jsonl"]}, "test_fraction": 0.3},
        {"test": A},
    ),
    "only train, as given": ({"a.jsonl": asks(*A)}, {"inputs": {"train": ["a.jsonl"]}},
                              {"train": A}),
    "a column": (
        {"a.jsonl": [*said("train", A), *said("Validation", B), *said("test", C)]},
        {},
        {"train": A, "validation": B, "test": C},
    ),
    "a column that some rows lack": (
        {"a.jsonl": [*said(None, A), *said("valid1", B)]},
        {},
        {"train": A, "validation": B},
    ),
    "a column, and a named file": (
        {"a.jsonl": [*said("train", A), *said("dev", B)], "test.jsonl": asks(*C)},
        {},
        {"train": A, "validation": B, "test": C},
    ),
    "a column that agrees with the names": (
        {"train.jsonl": said("train", A), "validation.jsonl": said("valid2", B)},
        {},
        {"train": A, "validation": B},
    ),
    "a column against what is given": (
        {"a.jsonl": said("train", A), "b.jsonl": said("train", B)},
        {"inputs": {"train": ["a.jsonl"], "test": ["b.jsonl"]}},
        {"train": A, "test": B},
    ),
    "by rows, as given": (
        {"train.jsonl": [*said("train", A), *said("test", B)]},
        {"inputs": {"rows": ["train.jsonl"]}},
        {"train": A, "test": B},
    ),
    "a fraction that has a test split": (
        {"train.jsonl": asks(*MANY), "test.jsonl": asks(*B)},
        {"test_fraction": 0.5},
        {"train": sorted(MANY), "test": B},
    ),
}  # fmt: skip


def in_folder(folder: Path, inputs: Any) -> Any:
    """Return inputs by split, with their files in the directory."""
    lists = {split: [f] if isinstance(f, str) else f for split, f in inputs.items()}
    return {split: [str(folder / file) for file in files] for split, files in lists.items()}


@pytest.mark.parametrize("case", KEPT)
def test_splits_are_kept(case: str, tiny: Path, tmp_path: Path) -> None:
    files, changes, wanted = KEPT[case]
    names = write_files(tmp_path, files)
    inputs = in_folder(tmp_path, changes["inputs"]) if "inputs" in changes else names

    others = {key: value for key, value in changes.items() if key != "inputs"}
    made = build_of(inputs, tiny, tmp_path / "out", **others)

    assert prompts_of(made) == wanted
    assert made.manifest.lines.kept == made.manifest.lines.lines
    report = validate(inputs)
    of_files = [(item.split, item.split_from) for item in report.inputs]
    assert of_files == [(item.split, item.split_from) for item in made.manifest.inputs]
    assert all(by not in ("none", "drawn") for _, by in of_files)


# Inputs that are one set: all pairs are drawn by prompt, as from a single file.
DRAWN: dict[str, Files] = {
    "no names": {"a.jsonl": asks(*MANY)},
    "a single name": {"test.jsonl": asks(*MANY)},
    "only train": {"train-0.jsonl": asks(*MANY[:200]), "train-1.jsonl": asks(*MANY[200:])},
    "a column with one split": {"a.jsonl": said("train", MANY)},
    "a column with other names": {
        "a.jsonl": [*said("harmless-base", MANY[:100]), *said("helpful", MANY[100:])]
    },
    "a false friend": {"test-prep-questions.jsonl": asks(*MANY)},
}


@pytest.mark.parametrize("case", DRAWN)
def test_one_set_is_drawn_by_prompt(case: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    one = build_of(write_files(tmp_path / "in", {"r.jsonl": asks(*MANY)}), tiny, tmp_path / "one")

    made = build_of(write_files(tmp_path / "in", DRAWN[case]), tiny, tmp_path / "out")

    assert prompts_of(made) == prompts_of(one)
    assert 0 < made.splits["test"].rows < 30
    assert {item.split_from for item in made.manifest.inputs} == {"drawn"}


def test_resplit_mixes_all_names(tiny: Path, tmp_path: Path) -> None:
    files = {"test.jsonl": asks(*MANY[:50]), "train.jsonl": said("validation", MANY[50:])}
    names = write_files(tmp_path, files)
    one = build_of(write_files(tmp_path, {"r.jsonl": asks(*MANY)}), tiny, tmp_path / "one")

    made = build_of(names, tiny, tmp_path / "out", resplit=True)

    assert prompts_of(made) == prompts_of(one)


def test_a_test_split_is_drawn_from_train_only_if_configured(tiny: Path, tmp_path: Path) -> None:
    files = {"train.jsonl": asks(*MANY), "validation.jsonl": asks(*B)}
    names = write_files(tmp_path, files)

    left = build_of(names, tiny, tmp_path / "left")
    drawn = build_of(names, tiny, tmp_path / "drawn", test_fraction=0.2)

    assert set(left.splits) == {"train", "validation"}
    assert set(drawn.splits) == {"train", "validation", "test"}
    assert prompts_of(drawn)["validation"] == B
    assert 30 < drawn.splits["test"].rows < 90
    assert sorted(p for prompts in prompts_of(drawn).values() for p in prompts) == sorted(
        [*MANY, *B]
    )


# Two readings that differ in what is trained.
REFUSED: dict[str, tuple[Files, Any, str, str]] = {
    "a name against a column": (
        {"train.jsonl": [*said("train", A), *said("test", B)], "test.jsonl": asks(*C)},
        None, "E186", "line 7 says 'test'",
    ),
    "a test file whose rows say train": (
        {"a.jsonl": asks(*A), "test.jsonl": said("train", B)}, None, "E186", "--split rows=FILE",
    ),
    "a value that is not a split, among splits": (
        {"a.jsonl": [*said("train", A), *said("test", B), *said("hard", C)]},
        None, "E186", "'hard' (line 13)",
    ),
    "rows given, and no column": (
        {"a.jsonl": asks(*A), "b.jsonl": asks(*B)},
        {"rows": ["a.jsonl"], "test": ["b.jsonl"]}, "E186", "no row of it",
    ),
    "a file in two splits": (
        {"a.jsonl": asks(*A)}, {"train": ["a.jsonl"], "test": ["./a.jsonl"]}, "E185", "given as",
    ),
    "a name of two splits": (
        {"train_test.jsonl": asks(*A), "test.jsonl": asks(*B)}, None, "E185", "test and train",
    ),
    "a name that is outside the directory": (
        {"a.jsonl": asks(*A)}, {"../x": ["a.jsonl"]}, "C102", "is not a split name",
    ),
    "names that differ in capitals": (
        {"a.jsonl": asks(*A), "b.jsonl": asks(*B)},
        {"Test": ["a.jsonl"], "test": ["b.jsonl"]}, "C102", "capital letters",
    ),
    "a split without files": ({"a.jsonl": asks(*A)}, {"train": [], "test": ["a.jsonl"]}, "C102",
                              "at least one file"),
    "a split of a number": ({"a.jsonl": asks(*A)}, {"train": [3]}, "C102", "each file must"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_two_readings_are_one_line(case: str, tiny: Path, tmp_path: Path) -> None:
    files, inputs, code, message = REFUSED[case]
    names = write_files(tmp_path, files)
    if inputs is not None:
        names = {
            split: [f"{tmp_path}/{file}" if isinstance(file, str) else file for file in some]
            for split, some in inputs.items()
        }  # type: ignore[assignment]

    with pytest.raises(PrefdataError) as caught:
        build_of(names, tiny, tmp_path / "out")

    assert caught.value.code == code
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unpaired_rows_of_two_splits_never_make_a_pair(tiny: Path, tmp_path: Path) -> None:
    """Give each prompt a good and a bad answer in one split, and a further one in the other."""
    rows = [
        {"prompt": f"q {n}", "completion": f" {label} {split} {n}", "label": label, "split": split}
        for n in range(6)
        for label, split in ((True, "train"), (False, "train"), (True, "test"))
    ]
    rows += [
        {"prompt": "t", "completion": f" {x}", "label": x, "split": "test"} for x in (True, False)
    ]
    names = write_files(tmp_path, {"kto.jsonl": rows})  # type: ignore[dict-item]

    made = build_of(names, tiny, tmp_path / "out")

    assert {split: seal.rows for split, seal in made.splits.items()} == {"train": 6, "test": 1}
    assert all("test" not in str(row) for row in made.text("train").select(["chosen"]).to_pylist())


def test_own_splits_are_read_back(tiny: Path, tmp_path: Path) -> None:
    files = {"train.jsonl": asks(*A), "dev.jsonl": asks(*B), "test.jsonl": asks(*C)}
    first = build_of(write_files(tmp_path, files), tiny, tmp_path / "first")
    texts = sorted(str(path) for path in (tmp_path / "first" / "text").iterdir())

    again = build_of(texts, tiny, tmp_path / "again")

    assert prompts_of(again) == prompts_of(first)


def test_the_command_line_gives_splits(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jsonl": asks(*A), "b.jsonl": asks(*B), "c.jsonl": asks(*C)})
    a, b, c = (str(tmp_path / f"{name}.jsonl") for name in "abc")
    run = CliRunner().invoke
    config = tmp_path / "build.yaml"
    config.write_text(f"inputs: {{train: ['{a}'], test: '{b}'}}\n")
    common = ["--tokenizer", str(tiny), "-o"]

    one = run(main, ["build", a, b, c, f"--split=test={b}", f"--split=hard={c}", *common,
                     str(tmp_path / "one")])  # fmt: skip
    two = run(main, ["build", str(config), *common, str(tmp_path / "two")])
    three = run(main, ["build", f"--split=test={a}", *common, str(tmp_path / "three")])
    four = run(main, ["build", str(config), "--resplit", *common, str(tmp_path / "four")])
    seen = run(main, ["validate", a, f"--split=test={b}"])
    wrong = run(main, ["build", a, "--split", "test", *common, str(tmp_path / "x")])
    none = run(main, ["build", *common, str(tmp_path / "x")])

    assert (one.exit_code, two.exit_code, three.exit_code) == (0, 0, 0), one.output + two.output
    assert prompts_of(prefdata.open(tmp_path / "one")) == {"train": A, "test": B, "hard": C}
    assert prompts_of(prefdata.open(tmp_path / "two")) == {"train": A, "test": B}
    assert prompts_of(prefdata.open(tmp_path / "three")) == {"test": A}
    assert four.exit_code == 0
    assert prompts_of(prefdata.open(tmp_path / "four")).get("test", []) != B
    assert seen.exit_code == 0
    assert (wrong.exit_code, none.exit_code) == (2, 2)
    assert "is not SPLIT=FILE; write test=FILE [C102]" in wrong.stderr
    assert "no file is named" in none.stderr


def test_the_command_line_adds_to_the_inputs_of_a_config(tiny: Path, tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jsonl": asks(*A), "b.jsonl": asks(*B), "c.jsonl": asks(*C)})
    a, b, c = (str(tmp_path / f"{name}.jsonl") for name in "abc")
    run, common = CliRunner().invoke, ["--tokenizer", str(tiny), "-o"]
    config = tmp_path / "build.yaml"
    config.write_text(f"inputs: {{train: ['{a}'], test: '{b}'}}\n")

    five = run(main, ["build", str(config), f"--split=dev={c}", *common, str(tmp_path / "five")])
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"inputs: ['{a}', '{b}']\n")
    six = run(main, ["build", str(plain), f"--split=test={b}", *common, str(tmp_path / "six")])
    twice = run(main, ["build", str(config), f"--split=test={a}", *common, str(tmp_path / "x")])
    assert (five.exit_code, six.exit_code, twice.exit_code) == (0, 0, 2)
    assert prompts_of(prefdata.open(tmp_path / "five")) == {"train": A, "test": B, "dev": C}
    assert prompts_of(prefdata.open(tmp_path / "six")) == {"train": A, "test": B}
    assert "[E185]" in twice.stderr


def test_the_source_of_a_split_is_on_screen_in_the_report_and_in_the_manifest(
    tiny: Path, tmp_path: Path
) -> None:
    files = {"rows.jsonl": asks(*A), "test.jsonl": asks(*B)}
    names = write_files(tmp_path, files)
    out = tmp_path / "out"

    run = CliRunner().invoke(
        main, ["build", *names, "--tokenizer", str(tiny), "-o", str(out)], env={"COLUMNS": "300"}
    )

    assert run.exit_code == 0, run.output
    assert "train, as no name gives a split" in run.stdout
    assert "test, by its name" in run.stdout
    assert "The inputs came in splits, which are kept." in run.stdout
    assert "The inputs came in splits, which are kept." in (out / "README.md").read_text()
    assert "rows.jsonl: no split in the name, so the rows are in train" in run.stderr
    report = orjson.loads((out / "report.json").read_bytes())
    assert [item["split"] for item in report["inputs"]] == ["train", "test"]
    assert "test, by its name" in (out / "report.html").read_text()
    found = [item.split_from for item in prefdata.open(out).manifest.inputs]
    assert found == ["rest", "name"]


def test_a_build_of_splits_is_the_same_with_any_workers_and_interruption(
    tiny: Path, tmp_path: Path
) -> None:
    rows = asks(*MANY[:40])
    held_out = {"val.jsonl": asks(*B, *MANY[:2]), "test.jsonl": asks(*C, *MANY[:3])}
    files = {"train.jsonl": rows, **held_out}
    names = write_files(tmp_path, files)
    trees = []
    for workers in (1, 2):
        build_of(names, tiny, tmp_path / str(workers) / "out", workers=workers)
        trees.append(tree(tmp_path / str(workers) / "out"))
    with pytest.raises(KeyboardInterrupt):
        stopped(names, tiny, tmp_path / "k" / "out")
    assert (tmp_path / "k" / "out" / FOLDER).exists()
    build_of(names, tiny, tmp_path / "k" / "out")
    trees.append(tree(tmp_path / "k" / "out"))
    backwards = build_of(names[::-1], tiny, tmp_path / "b" / "out")

    assert trees[0] == trees[1] == trees[2]
    first = prefdata.open(tmp_path / "1" / "out")
    for split in first.splits:
        ids = [sorted(build.tokens(split)["pair_id"].to_pylist()) for build in (first, backwards)]
        assert ids[0] == ids[1], "the order of the files moves no pair to another split"


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class _Stops(Silent):
    """Progress that is interrupted once a shard is written."""

    def bar(self, title: str, total: int) -> Any:
        if title == "tokens":
            return _StopsAtFirst()
        return super().bar(title, total)


class _StopsAtFirst:
    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, _steps: int) -> None:
        raise KeyboardInterrupt


def stopped(names: list[str], tiny: Path, out: Path) -> None:
    values = {"inputs": names, "tokenizer": str(tiny), "out": out, "workers": 1}
    prefdata.build(make_config(values, place="test"), progress=_Stops())


def test_a_split_column_counts_as_read_if_it_names_splits(tmp_path: Path) -> None:
    files = {
        "a.jsonl": [*said("train", A), *said("test", B)],
        "b.jsonl": said("train", C),
        "c.jsonl": said("funny", D),
    }
    names = write_files(tmp_path, files)

    report = validate(names)

    unread = [[column.name for column in item.reading.not_read] for item in report.inputs]
    assert unread == [[], [], ["split"]]
    assert any("'funny': not a split, so not used" in note for note in report.notes)


def test_validate_says_what_a_single_name_means(tmp_path: Path) -> None:
    (name,) = write_files(tmp_path, {"test.jsonl": asks(*A)})

    run = CliRunner().invoke(main, ["validate", name])

    assert run.exit_code == 0
    assert "all rows are of the test split, so they are one set" in run.stderr


@pytest.mark.parametrize("resplit", [False, True])
def test_own_text_is_split_by_file_names_not_by_its_split_column(
    resplit: bool, tiny: Path, tmp_path: Path
) -> None:
    """Build text whose split column differs from its file names, because of `resplit`."""
    rows = [ask(prompt, split="train" if n % 3 else "validation") for n, prompt in enumerate(MANY)]
    names = write_files(tmp_path, {"a.jsonl": rows})
    first = build_of(names, tiny, tmp_path / "first", resplit=resplit)
    texts = sorted(str(path) for path in (tmp_path / "first" / "text").iterdir())

    again = build_of(texts, tiny, tmp_path / "again")

    ids = [
        {split: sorted(made.tokens(split)["pair_id"].to_pylist()) for split in made.splits}
        for made in (first, again)
    ]
    assert ids[0] == ids[1]
    assert {item.layout for item in again.manifest.inputs} == {"prefdata"}
