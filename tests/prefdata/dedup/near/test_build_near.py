"""Near-duplicates in a build: reported, dropped if configured, and kept in one split."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import prefdata
from prefdata.config import make_config
from prefdata.dedup.near import BARRIER, unit_texts
from prefdata.errors import UsageError
from prefdata.read import expand_inputs, load_layout
from prefdata.store.reader import Build
from tests.prefdata.conftest import write_rows
from tests.prefdata.read.rows import read_file

Row = dict[str, object]


def family(number: int, sizes: int = 3) -> list[Row]:
    """Return prompts that differ in a few words, each with an answer of its own."""
    words = [f"w{number}x{place}" for place in range(14)]
    return [
        {
            "prompt": " ".join([*words, *["late"] * copy]),
            "chosen": f"yes {number} {copy}",
            "rejected": f"no {number} {copy}",
        }
        for copy in range(sizes)
    ]


def others(number: int) -> list[Row]:
    return [{"prompt": f"else {n}", "chosen": "a", "rejected": "b"} for n in range(number)]


def build(folder: Path, tokenizer: Path, rows: list[Row], **changes: Any) -> Build:
    values = {
        "inputs": [str(write_rows(folder / "rows.jsonl", rows))],
        "tokenizer": str(tokenizer),
        "out": folder / "out",
        "test_fraction": 0.5,
        "near_duplicates": {"words": 2},
        **changes,
    }
    return prefdata.build(make_config(values, place="test"))


def lines_of(made: Build, split: str) -> list[int]:
    return [row["line"] for row in made.text(split).to_pylist()]


def findings(made: Build) -> dict[str, Any]:
    report = json.loads(made.file("report.json").read_bytes())
    return {finding["code"]: finding for finding in report["findings"]}


def test_near_duplicates_of_a_prompt_are_in_one_split(tiny: Path, tmp_path: Path) -> None:
    rows = [row for number in range(0, 3000, 100) for row in family(number)]

    made = build(tmp_path, tiny, rows)
    families = {split: {(line - 1) // 3 for line in lines_of(made, split)} for split in made.splits}

    assert set(families) == {"train", "test"}
    assert families["train"].isdisjoint(families["test"])
    assert sum(split.rows for split in made.splits.values()) == 90


def test_they_are_reported_with_what_they_are_near(tiny: Path, tmp_path: Path) -> None:
    found = findings(build(tmp_path, tiny, family(1) + others(9)))["PD402"]

    assert (found["severity"], found["count"]) == ("W", 2)
    message = "similarity 0.93 to rows.jsonl:1"
    assert (found["examples"][0]["line"], found["examples"][0]["message"]) == (2, message)


def test_at_severity_e_one_of_a_cluster_is_kept(tiny: Path, tmp_path: Path) -> None:
    again = {**family(1)[0], "chosen": "another answer"}  # of the prompt that is kept
    rows = [*family(1), *others(9), family(1)[1], again]

    made = build(tmp_path, tiny, rows, severity={"PD402": "E"})
    copies = parquet.read_table(made.file("duplicates.parquet")).to_pylist()

    assert [(copy["line"], copy["kept_line"]) for copy in copies] == [(2, 1), (3, 1), (13, 1)]
    assert copies[0]["similarity"] == copies[2]["similarity"] == 13 / 14
    assert sorted(line for split in made.splits for line in lines_of(made, split)) == [
        1, *range(4, 13), 14,
    ]  # fmt: skip
    lines = made.manifest.lines
    assert (lines.lines, lines.kept, lines.duplicates) == (14, 11, 3)
    assert {f.stage: f.dropped for f in made.manifest.funnel}["near duplicates"] == {"PD402": 2}


def test_the_longest_is_kept_if_configured(tiny: Path, tmp_path: Path) -> None:
    rows = family(1, sizes=2)
    rows[1]["prompt"] = f"{rows[0]['prompt']} for good"
    near = {"words": 2, "keep": "longest"}

    made = build(tmp_path, tiny, rows, severity={"PD402": "E"}, near_duplicates=near)

    assert [line for split in made.splits for line in lines_of(made, split)] == [2]


def test_neither_workers_nor_a_second_run_change_a_byte(tiny: Path, tmp_path: Path) -> None:
    rows = [row for number in range(0, 500, 100) for row in family(number)]
    hashes = set()
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        made = build(folder, tiny, rows, workers=workers, severity={"PD402": "E"})
        hashes |= {(shard.path, shard.sha256) for shard in made.manifest.shards}

    assert len(hashes) == len(made.manifest.shards)


def test_off_finds_none(tiny: Path, tmp_path: Path) -> None:
    rows = [row for number in range(0, 500, 100) for row in family(number)]

    made = build(tmp_path, tiny, rows, severity={"PD402": "off"})

    assert "PD402" not in findings(made)
    assert not list(tmp_path.rglob("*near-*"))


def test_a_pair_is_not_near_the_opposite_one(tiny: Path, tmp_path: Path) -> None:
    one, other = "yes it is so and will always be", "no not in the least i should say"
    rows: list[Row] = [
        {"prompt": "q1 q2", "chosen": one, "rejected": other},
        {"prompt": "q1 q3", "chosen": other, "rejected": one},
        {"prompt": "q1 q4", "chosen": f"{one} at all", "rejected": other},
    ]
    near = {"unit": "pair", "words": 2, "threshold": 0.6}

    made = build(tmp_path, tiny, rows, severity={"PD402": "E"}, near_duplicates=near)

    assert sorted(line for split in made.splits for line in lines_of(made, split)) == [1, 2]


def test_a_unit_is_the_text_of_its_messages(tmp_path: Path) -> None:
    rows: list[Row] = [
        {
            "prompt": [
                {"role": "user", "content": "a"},
                {"role": "user", "content": "b\x1ec"},
            ],
            "chosen": [{"role": "assistant", "content": "d"}],
            "rejected": [{"role": "assistant", "content": "e"}],
        }
    ]
    (file,) = expand_inputs([str(write_rows(tmp_path / "rows.jsonl", rows))])
    layout = load_layout("trl-conv-explicit")
    records = read_file(
        file,
        layout=layout,
    ).records

    assert unit_texts(records, "prompt").to_list() == ["a\nb c"]
    assert unit_texts(records, "completion").to_list() == [f"d{BARRIER}e"]
    assert unit_texts(records, "pair").to_list() == [f"a\nb c{BARRIER}d{BARRIER}e"]


def test_a_wrong_name_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"near_duplicates.treshold: no such key; .*threshold"):
        build(tmp_path, tiny, family(1), near_duplicates={"treshold": 0.5})


def test_a_note_reports_prompts_that_cannot_go_to_test(tiny: Path, tmp_path: Path) -> None:
    template = " ".join(f"w{place}" for place in range(30))
    rows: list[Row] = [
        {"prompt": f"{template} {n}", "chosen": f"yes {n}", "rejected": f"no {n}"}
        for n in range(40)
    ]

    made = build(tmp_path, tiny, rows + others(40), test_fraction=0.3)
    report = json.loads(made.file("report.json").read_bytes())

    assert set(range(1, 41)) <= set(lines_of(made, "train"))
    assert [note.split(":")[0] for note in report["notes"] if "train" in note] == [
        "40 pairs stay in train"
    ]
