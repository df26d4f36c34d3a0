"""Differences between two builds, counted and listed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

import prefdata
from prefdata.cli import main
from prefdata.comparison.compare import Comparison
from prefdata.store.reader import Build

Row = dict[str, Any]


def row(n: int, **changes: Any) -> Row:
    return {
        "prompt": [{"role": "user", "content": f"What is {n} plus {n}?"}],
        "chosen": [{"role": "assistant", "content": f"It is {2 * n}."}],
        "rejected": [{"role": "assistant", "content": f"Who knows {n}?"}],
    } | changes


def flip(one: Row) -> Row:
    return one | {"chosen": one["rejected"], "rejected": one["chosen"]}


def build(
    folder: Path, tiny: Path, train: Sequence[Row], test: Sequence[Row], **changes: Any
) -> Build:
    folder.mkdir()
    for name, rows in (("train", train), ("test", test)):
        lines = b"".join(orjson.dumps(one) + b"\n" for one in rows)
        (folder / f"{name}.jsonl").write_bytes(lines)
    values = {
        "inputs": [str(folder / "*.jsonl")], "tokenizer": str(tiny), "out": folder / "out",
        "severity": {"PD402": "off"}, "shard_rows": 16,
    }  # fmt: skip
    return prefdata.build(prefdata.BuildConfig(**(values | changes)))


def diff(*words: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, words)])


@pytest.fixture
def first(tiny: Path, tmp_path: Path) -> Build:
    return build(
        tmp_path / "one", tiny, [row(n) for n in range(50)], [row(n) for n in range(50, 60)]
    )


def test_each_kind_of_change_is_counted_and_listed(
    first: Build, tiny: Path, tmp_path: Path
) -> None:
    """Compare builds with 7 pairs gone, 5 flipped, 3 moved to test, 10 added."""
    train = [flip(row(n)) if n < 12 else row(n) for n in range(7, 47)]
    test = [row(n) for n in (*range(47, 50), *range(50, 60))]
    second = build(tmp_path / "two", tiny, [*train, *(row(n) for n in range(100, 110))], test)
    report = tmp_path / "diff.json"
    done = diff(first.path, second.path, "--report", report)
    found = Comparison.model_validate_json(report.read_bytes())

    assert done.exit_code == 1, done.output
    numbers = [len(getattr(found, kind)) for kind in ("added", "gone", "flipped", "moved")]
    assert numbers == [10, 7, 5, 3]
    assert found.same == 60 - 7 - 5 - 3
    assert (found.tokens, found.numbers) == ([], [])
    assert found.splits == {"train": [50, 50], "test": [10, 13]}
    assert [(one.before, one.split, one.source, one.line) for one in found.moved] == [
        ("train", "test", "test.jsonl", line) for line in (1, 2, 3)
    ]
    assert [one.line for one in found.flipped] == [1, 2, 3, 4, 5]
    assert {one.source for one in found.gone} == {"train.jsonl"}
    for text in ("        10  added", "         7  gone", "         5  label flipped", "train: 50"):
        assert text in done.output


def test_a_template_changes_tokens_and_no_pair(first: Build, tiny: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny, tmp_path / "other")
    config = json.loads((other / "tokenizer_config.json").read_text())
    config["chat_template"] = config["chat_template"].replace("<|im_end|>\\n", "<|im_end|>")
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    config["chat_template"] = config["chat_template"].replace("<|im_end|>\n", "<|im_end|>")
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    rows = [row(n) for n in range(60)]
    second = build(tmp_path / "two", other, rows[:50], rows[50:], max_length=500)
    done = diff(first.path, second.path, "--report", tmp_path / "diff.html")

    assert "        60  other tokens" in done.output
    assert "         0  pairs are the same" in done.output
    assert "template_sha256: " in done.output
    assert "max_length: None → 500" in done.output
    assert "The builds train on different data." in (tmp_path / "diff.html").read_text()


def test_equal_content_is_not_a_difference(first: Build, tiny: Path, tmp_path: Path) -> None:
    rows = [row(n) for n in range(60)]
    second = build(tmp_path / "two", tiny, rows[:50], rows[50:])
    done = diff(first.path, second.path)

    assert done.exit_code == 0, done.output
    assert "content hash: the same" in done.output
    assert "        60  pairs are the same" in done.output


def test_weights_and_codes_are_compared(first: Build, tiny: Path, tmp_path: Path) -> None:
    train = [row(n, margin=float(n)) for n in range(50)] + [row(3)]
    second = build(tmp_path / "two", tiny, train, [row(n) for n in range(50, 60)])
    done = diff(first.path, second.path)

    assert "        50  other weight, margin or rank" in done.output
    assert "PD401" in done.output


def test_messages_with_other_fields_are_the_same_words(tiny: Path, tmp_path: Path) -> None:
    """Find a flip although only the second build has a column of names."""
    rows = [row(n) for n in range(20)]
    named = row(99)
    named["prompt"] = [{"role": "user", "name": "Ann", "content": "Hi"}]
    one = build(tmp_path / "one", tiny, rows, [row(50)])
    two = build(tmp_path / "two", tiny, [*map(flip, rows), named], [row(50)])
    done = diff(one.path, two.path)

    assert "        20  label flipped" in done.output
    assert "         1  added" in done.output


def test_foreign_files_are_not_overwritten(first: Build, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.html"
    thesis.write_text("mine")
    sealed = diff(first.path, first.path, "--report", first.path / "report.json")

    assert "[E171]" in diff(first.path, first.path, "--report", thesis).output
    assert "[E160]" in diff(first.path, first.path, "--report", tmp_path / "x.txt").output
    assert "[E171]" in sealed.output or "[E173]" in sealed.output
    assert thesis.read_text() == "mine"
