"""A layout of one's own in a few commands: a first try, its pairs, and a build."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

import prefdata
from prefdata.cli import main
from prefdata.errors import UsageError
from prefdata.read import load_layout
from prefdata.store.reader import Build

Row = dict[str, Any]


def run(*words: object) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def write(path: Path, rows: list[Row]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def ask(n: int) -> str:
    return f"How many are {n} and {n * 7}? Explain it in a line."


def say(n: int, what: str) -> str:
    return f"They are {n * 8}, {what}, which anybody can see at once."


def sides(n: int, first: str, second: str) -> Row:
    return {first: say(n, "surely"), second: say(n, "perhaps")}


ROWS = range(24)
JUDGES: dict[str, tuple[list[Row], int, dict[int, tuple[str, float | None]]]] = {
    "two answers and a vote with ties": (
        [{"id": n, "question": ask(n), **sides(n, "answer_a", "answer_b"),
          "model_a": "m1", "model_b": "m2", "winner": ["A", "B", "tie"][n % 3]} for n in ROWS],
        16, {1: ("surely", None), 2: ("perhaps", None)},
    ),
    "preferences from 1 to 2": (
        [{"instruction": ask(n), **sides(n, "output_1", "output_2"),
          "preference": [1.0, 1.8, 1.5][n % 3]} for n in ROWS],
        16, {1: ("surely", 0.5), 2: ("perhaps", 0.3)},
    ),
    "a list of acceptable places": (
        [{"query": ask(n), "responses": [say(n, one) for one in ("surely", "perhaps", "maybe so")],
          "acceptable": [[0, 2], [1], []][n % 3]} for n in ROWS],
        32, {2: ("perhaps", None)},
    ),
    "the majority of three annotators": (
        [{"prompt": ask(n), **sides(n, "response_a", "response_b"), "annotator_1": "a",
          "annotator_2": ["a", "b"][n % 2], "annotator_3": ["a", "b", None][n % 3]} for n in ROWS],
        20, {1: ("surely", 1.0), 2: ("perhaps", 2 / 3)},
    ),
    "the majority of annotators who write the initials of the columns": (
        [{"question": ask(n), **sides(n, "left", "right"), "ann1": "L", "ann2": "LR"[n % 2],
          "ann3": "R"} for n in ROWS],
        24, {1: ("surely", 2 / 3), 2: ("perhaps", 2 / 3)},
    ),
    "votes in a list of objects": (
        [{"prompt": ask(n), **sides(n, "left", "right"),
          "judgments": [{"who": who, "vote": vote} for who, vote in zip(
              "xyz", ("left", ["left", "right"][n % 2], "right"), strict=True)]} for n in ROWS],
        24, {1: ("surely", 2 / 3), 2: ("perhaps", 2 / 3)},
    ),
    "a score for each of a pair": (
        [{"task": ask(n), **sides(n, "text_1", "text_2"), "score_1": n % 3, "score_2": 1}
         for n in ROWS],
        16, {1: ("perhaps", None), 3: ("surely", None)},
    ),
    "candidates with a score each": (
        [{"prompt": ask(n), "candidates": [
            {"model": "m1", "text": say(n, "surely"), "score": 0.5},
            {"model": "m2", "text": say(n, "perhaps"), "score": (n % 3) / 2}]} for n in ROWS],
        16, {1: ("surely", None), 3: ("perhaps", None)},
    ),
    "the last two turns of a dialogue": (
        [{"messages": [{"role": "user", "content": ask(n)},
                       {"role": "assistant", "content": say(n, "surely")},
                       {"role": "assistant", "content": say(n, "perhaps")}],
          "better": ["first", "second"][n % 2]} for n in ROWS],
        24, {1: ("surely", None), 2: ("perhaps", None)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JUDGES)
def test_a_judges_file_is_built_in_three_commands(name: str, tiny: Path, tmp_path: Path) -> None:
    rows, num_pairs, wanted = JUDGES[name]
    path, own, out = write(tmp_path / "judged.jsonl", rows), tmp_path / "mine.yaml", tmp_path / "o"
    own.write_text(run("layouts", "--new", path).output)
    tried = run("layouts", own, "--try", path)
    built = run("build", path, "--layout", own, "--tokenizer", tiny, "-o", out)

    assert (tried.exit_code, built.exit_code) == (0, 0), own.read_text() + tried.output
    assert f"24 rows read by mine: {num_pairs} pairs" in tried.output
    made = prefdata.open(out)
    text = [row for split in made.splits for row in made.text(split).to_pylist()]
    assert sum(split.rows for split in made.splits.values()) == num_pairs - less(made)
    for line, (better, margin) in wanted.items():
        found = [row for row in text if row["line"] == line]
        assert all(better in row["chosen"][0]["content"] for row in found), line
        assert all(row["margin"] == (margin and pytest.approx(margin)) for row in found), line
        assert all(row["prompt"][-1]["content"] == ask(line - 1) for row in found)


def less(made: Build) -> int:
    """Return the pairs that a build drops after reading."""
    later = [stage.dropped for stage in made.manifest.funnel if stage.stage != "read"]
    return sum(sum(dropped.values()) for dropped in later)


def test_a_first_try_says_what_it_found_and_what_it_does_not_know(tmp_path: Path) -> None:
    rows = [{"prompt": ask(n), **sides(n, "a", "b"), "winner": ["a", "b", "dunno"][n % 3],
             "my note": "x"} for n in ROWS]  # fmt: skip
    path = write(tmp_path / "judged.jsonl", rows)
    text = run("layouts", "--new", path).output
    (tmp_path / "mine.yaml").write_text(text)
    tried = run("layouts", tmp_path / "mine.yaml", "--try", path)

    assert '#   winner: text: "a", "b", "dunno"' in text
    assert "# dunno: ?    # 8 rows: write 0, 1 … or tie" in text
    assert tried.exit_code == 1
    assert "R210 wrong_type: 8 (33.3%)" in tried.output
    assert "`winner` is 'dunno', not one of a, b" in tried.output
    assert "not read: my note" in tried.output


def test_a_file_that_needs_no_layout_is_said_to_need_none(tmp_path: Path) -> None:
    rows = [{"prompt": ask(n), "chosen": say(n, "x y"), "rejected": say(n, "z w")} for n in ROWS]
    text = run("layouts", "--new", write(tmp_path / "a.jsonl", rows)).output

    assert "is read as trl-std-explicit without a layout of your own" in text
    assert "chosen: chosen" in text


@pytest.mark.parametrize("words", ["a --new b", "--try b", "--new b --try c"])
def test_options_that_do_not_go_together_are_refused(words: str) -> None:
    done = run("layouts", *words.split())
    assert done.exit_code == 2
    assert "give NAME, NAME --try FILE, or --new FILE" in done.output


SHORT = "columns: {q: text}\nprompt: q\n"
LABEL = SHORT + "candidates: {items: [a, b], label: {column: v, map: %s}}\n"


@pytest.mark.parametrize(
    ("mapped", "values"),
    [
        ("{1: 0, 2: 1, null: tie}", [1, 2, None]),
        ("{true: 0, false: 1, null: tie}", [True, False, None]),
        ("{1.0: 0, 2.5: 1, x: tie}", [1.0, 2.5, "x"]),
        ("{yes: 0, no: 1, ~: tie}", ["yes", "no", None]),
    ],
)
def test_a_map_takes_numbers_booleans_and_null(
    mapped: str, values: list[Any], tmp_path: Path
) -> None:
    """Name, about and fixture may be absent: the file's name is the layout's."""
    own = tmp_path / "own.yaml"
    own.write_text(LABEL % mapped)
    rows = [{"q": ask(n), "a": "yes it is", "b": "not so", "v": v} for n, v in enumerate(values)]
    done = run("layouts", own, "--try", write(tmp_path / "rows.jsonl", rows))

    assert done.exit_code == 0, done.output
    assert "3 rows read by own: 2 pairs, 1 row refused" in done.output
    assert done.output.index("yes it is") < done.output.index("line 2")


FIXTURE = """fixture:
  rows: [{q: "1?", a: "one", b: "two", v: 1}]
  pairs:
    - prompt: [{role: user, content: "1?"}]
      chosen: [{role: assistant, content: "%s"}]
      rejected: [{role: assistant, content: "%s"}]
      chosen_rank: 1
      rejected_rank: 2
"""


def test_a_fixture_is_checked_whenever_it_is_there(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(LABEL % "{1: 0}" + FIXTURE % ("one", "two"))
    assert load_layout(str(own)).name == "own"
    own.write_text(LABEL % "{1: 0}" + FIXTURE % ("two", "one"))
    with pytest.raises(UsageError, match=r"pair 1 of the fixture is .*\[C152\]"):
        load_layout(str(own))
    own.write_text(LABEL % "{2: 0}" + FIXTURE % ("one", "two"))
    with pytest.raises(UsageError, match=r"give 0 pairs, not 1: `v` is '1', not one of 2 \(R210\)"):
        load_layout(str(own))
    assert run("layouts", own).exit_code == 2


def test_all_faults_of_a_layout_are_said_at_once(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("columns: {q: txt}\npromt: q\ncandidates: {items: a, strength: {column: s}}\n")
    said = run("layouts", own, "--try", own).output

    for part in ("columns.q", "promt", "candidates.strength.first"):
        assert part in said


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        (["a", "x"], "`votes[1]` is 'x', not one of a, b"),
        ([None, None], "holds no vote"),
        ([], "holds no vote"),
        ("a", "`votes` is text, not a list"),
    ],
)
def test_votes_that_are_none_are_refused(votes: Any, said: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        SHORT + "candidates: {items: [a, b], votes: {columns: votes, map: {a: 0, b: 1}}}\n"
    )
    rows = [{"q": "one?", "a": "it is", "b": "not so", "votes": votes}]

    assert said in run("layouts", own, "--try", write(tmp_path / "rows.jsonl", rows)).output


@pytest.mark.parametrize("place", [3, -1, 1.5, "x", None])
def test_a_place_that_no_candidate_has_is_refused(place: Any, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(SHORT + "candidates: {items: r, acceptable: {column: ok, first: 1}}\n")
    rows = [{"q": "one?", "r": ["it is", "not so"], "ok": [place]}]

    done = run("layouts", own, "--try", write(tmp_path / "rows.jsonl", rows))
    assert "R210" in done.output
    assert done.exit_code == 1


def test_shipped_layouts_have_what_is_optional_for_others() -> None:
    from prefdata.read import shipped_layouts

    for layout in shipped_layouts().values():
        assert layout.name
        assert layout.about
        assert layout.fixture.rows


def test_named_columns_next_to_a_preference_are_two_readings(tmp_path: Path) -> None:
    rows = [{"q": ask(n), **sides(n, "a", "b"), "preference": 1 + n % 2} for n in ROWS]
    path = write(tmp_path / "rows.jsonl", rows)
    named = ["--prompt-column", "q", "--chosen-column", "a", "--rejected-column", "b"]
    done = run("validate", path, *named)

    assert done.exit_code == 2
    assert "`preference` is 1, 2 and may say which answer is better" in done.output
    assert run("validate", path, *named, "--layout", "trl-std-explicit").exit_code == 0
    same = [row | {"preference": 1} for row in rows]
    assert run("validate", write(tmp_path / "same.jsonl", same), *named).exit_code == 0
    (tmp_path / "own.yaml").write_text(run("layouts", "--new", path).output)
    assert run("layouts", tmp_path / "own.yaml", "--try", path).exit_code == 0


@pytest.mark.parametrize("prompt", [ask(1), [{"role": "user", "content": ask(1)}]])
def test_several_lone_rejected_turns_are_two_readings(prompt: Any, tmp_path: Path) -> None:
    def turn(text: str) -> Row:
        return {"role": "assistant", "content": text}

    row = {"prompt": prompt, "chosen": [turn("yes it is")], "rejected": [turn("no"), turn("never")]}
    path = write(tmp_path / "rows.jsonl", [row] * 3)
    done = run("validate", path)
    assert done.exit_code == 2
    assert "several answers, or one answer of several turns" in done.output
    name = "ultrafeedback-binarized" if isinstance(prompt, str) else "trl-conv-explicit"
    (one,) = prefdata.validate(str(path), prefdata.ValidateOptions(layout=name)).inputs
    assert one.first_pair is not None
    assert one.first_pair.rejected == "assistant: no\nassistant: never"
    own = tmp_path / "own.yaml"
    own.write_text(
        "columns: {chosen: list, rejected: list}\nprompt: prompt\n"
        "candidates: {items: [chosen, rejected], in_order: true}\n"
    )
    assert (
        "3 rows read by own: 6 pairs, 0 rows refused" in run("layouts", own, "--try", path).output
    )


def test_a_split_inside_of_an_object_is_read_and_said(tiny: Path, tmp_path: Path) -> None:
    splits = ["train", "train", "test"]
    rows = [{"prompt": ask(n), "chosen": say(n, "surely"), "rejected": say(n, "not"),
             "metadata": {"split": splits[n % 3], "n": n}} for n in ROWS]  # fmt: skip
    path = write(tmp_path / "rows.jsonl", rows)
    built = prefdata.build(
        path, tokenizer=str(tiny), out=tmp_path / "out", severity={"PD402": "off"}
    )

    assert {name: split.rows for name, split in built.splits.items()} == {"train": 16, "test": 8}
    (one,) = built.manifest.inputs
    assert one.split_from == "rows"
    assert "rows name their split in `metadata.split`" in one.reading.said
