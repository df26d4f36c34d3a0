"""Columns that no layout reads are listed with their share, kind and example, for each file."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main
from prefdata.read.unread import Unread, kind_of, meaning_of
from prefdata.store.canonical import hash_json
from prefdata.store.manifest import read_manifest
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.conftest import chat_rows, write_rows


def rows_with(columns: dict[str, object], number: int = 8) -> list[dict[str, object]]:
    return [row | columns for row in chat_rows(number)]


def test_every_column_that_is_not_read_is_listed_with_share_kind_and_example(
    tmp_path: Path,
) -> None:
    rows = rows_with({"mood": "calm", "votes": 3, "empty": None})
    rows[0] |= {"history": [["a", "b"]]}
    path = write_rows(tmp_path / "rows.jsonl", rows)

    report = validate([str(path)], ValidateOptions(workers=1))

    (found,) = report.inputs
    listed = [(c.name, c.rows, c.kind, c.example, c.means) for c in found.reading.not_read]
    assert listed == [
        ("mood", 8, "text", '"calm"', None),
        ("votes", 8, "number", "3", None),
        ("history", 1, "list of lists", '[["a","b"]]', "history"),
    ]
    assert found.reading.chosen_by == "columns"


def test_a_column_with_a_meaning_is_a_warning_that_names_it(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "plain.jsonl", rows_with({"mood": "calm"}))
    weighted = write_rows(tmp_path / "weighted.jsonl", rows_with({"sample_weight": 2.0}))

    codes = {one.code: one for one in validate([str(weighted)]).findings}
    quiet = {one.code for one in validate([str(plain)]).findings}

    assert "`sample_weight` (weight)" in codes["PD110"].examples[0].message
    assert (codes["PD110"].severity, codes["PD110"].count) == ("W", 8)
    assert "PD110" not in quiet


def test_keys_of_an_object_that_is_read_in_part_are_listed(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    worse = [turns[0], {"role": "assistant", "content": "No."}]
    row = {"chosen": {"messages": turns, "score": 8}, "rejected": {"messages": worse, "mood": "x"}}
    path = write_rows(tmp_path / "rows.jsonl", [row])

    (found,) = validate([str(path)]).inputs

    listed = [(column.name, column.means) for column in found.reading.not_read]
    assert listed == [("chosen.score", "scores"), ("rejected.mood", None)]


def test_a_score_in_a_message_is_listed(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": {"role": "assistant", "content": "Hello.", "score": 8}}
    row |= {"rejected": {"role": "assistant", "content": "No.", "tool_calls": None}}
    path = write_rows(tmp_path / "rows.jsonl", [row])

    (found,) = validate([str(path)]).inputs

    assert [column.name for column in found.reading.not_read] == ["chosen.score"]


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("system_prompt", "system"),
        ("toolsJson", "tools"),
        ("chosen-reward", "scores"),
        ("Margin", "margin"),
        ("sampleWeight", "weight"),
        ("prompt_id", None),
        ("weightless", None),
        ("image", "images"),
        ("conversation_history", "history"),
        ("source_split", None),
        ("split", "split"),
    ],
)
def test_names_mean_what_their_words_mean(name: str, meaning: str | None) -> None:
    assert meaning_of(name) == meaning


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a", "text"),
        (True, "true or false"),
        (1.5, "number"),
        ({"a": 1}, "object"),
        (["a"], "list of texts"),
        ([{"role": "user", "content": "a"}], "messages"),
        ([{"a": 1}], "list of objects"),
        (["a", 1], "list"),
    ],
)
def test_kinds_are_named_in_words(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def test_parts_of_a_file_add_up() -> None:
    both = Unread(2, "text", '"a"').plus(Unread(3, "number", "1"))

    assert both == Unread(5, "text, number", '"a"')


def test_screen_and_manifest_list_unread_columns_and_escape_them(
    tmp_path: Path, tiny: Path
) -> None:
    rows = rows_with({"mo\x1bod": "\x1b[31mred" + "x" * 200}, 40)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out"

    ran = CliRunner().invoke(
        main, ["build", str(path), "--tokenizer", str(tiny), "-o", str(out)], color=True
    )

    assert ran.exit_code == 0, ran.output
    assert "How each file was read" in ran.output
    assert "Columns not read" in ran.output
    assert "\x1b[31mred" not in ran.output
    (seal,) = read_manifest(out).inputs
    assert [column.name for column in seal.reading.not_read] == ["mo\x1bod"]
    assert len(seal.reading.not_read[0].example) <= 60


def test_a_manifest_of_an_earlier_version_is_still_whole(tmp_path: Path, tiny: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", chat_rows(40))
    build = prefdata.build(
        prefdata.BuildConfig(inputs=[str(path)], tokenizer=str(tiny), out=tmp_path / "out")
    )
    file = build.path / "manifest.json"
    old = json.loads(file.read_bytes())
    for item in old["inputs"]:
        del item["reading"]
    old["hash"] = hash_json({k: v for k, v in old.items() if k != "hash"})
    file.write_text(json.dumps(old))

    assert prefdata.open(build.path).manifest.inputs[0].reading.not_read == []
    file.write_text(json.dumps(old | {"fingerprint": "0" * 16}))
    with pytest.raises(prefdata.PrefdataError, match="E133"):
        prefdata.open(build.path)
