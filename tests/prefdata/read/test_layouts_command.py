"""`prefdata layouts` lists every layout, and shows the pairs of its rows."""

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result
from inline_snapshot import snapshot

from prefdata.cli import main
from prefdata.read import load_layout, shipped_layouts


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_each_layout_is_one_line() -> None:
    lines = run("layouts").output.splitlines()

    assert [line.split()[0] for line in lines] == list(shipped_layouts())
    assert max(map(len, lines)) <= 130


@pytest.mark.parametrize("name", shipped_layouts())
def test_a_layout_is_shown_with_its_rows_and_pairs(name: str) -> None:
    result = run("layouts", name)

    assert result.exit_code == 0
    for row in shipped_layouts()[name].fixture.rows:
        assert orjson.dumps(row).decode() in result.output.replace("\\\\", "\\")
    assert result.output.count("    chosen ") == len(shipped_layouts()[name].fixture.pairs)
    assert "seen" in result.output


def test_text_without_a_prompt_is_shown() -> None:
    assert run("layouts", "trl-std-implicit").output == snapshot("""\
trl-std-implicit
  about       TRL's standard preference layout without a prompt, two texts with a common
              beginning
  columns     chosen: text, rejected: text
  others      id, source
  becomes     text, verbatim; split between words
  seen        trl 1.16.0, docs/source/dataset_formats.md
  rows
    {"chosen":"Which color?\\nIt is blue.","rejected":"Which color?\\nIt is green."}
  pairs
    prompt    user: Which color?\\nIt is
    chosen    assistant:  blue.
    rejected  assistant:  green.
""")


def test_a_layout_of_ones_own_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: own\nabout: mine\ncolumns: {q: text}\nprompt: q\nchosen: a\nrejected: b\n"
        "fixture: {rows: [], pairs: []}\n"
    )

    assert run("layouts", tmp_path / "own.yaml").output.startswith("own\n  about       mine\n")


def test_a_report_names_the_dimension_that_was_read(tmp_path: Path) -> None:
    rows = shipped_layouts()["pku-saferlhf"].fixture.rows
    (tmp_path / "pku.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    report = tmp_path / "report.json"

    asked = run("validate", tmp_path / "pku.jsonl")
    read = run(
        "validate", tmp_path / "pku.jsonl", "--layout", "pku-saferlhf:safer", "--report", report
    )

    assert (asked.exit_code, read.exit_code) == (2, 0)
    assert "--layout pku-saferlhf:better or pku-saferlhf:safer" in asked.stderr
    assert orjson.loads(report.read_bytes())["inputs"][0]["layout"] == "pku-saferlhf:safer"


def test_only_a_named_shipped_layout_is_loaded() -> None:
    from prefdata.read.layouts import registry as shipped

    shipped._shipped.cache_clear()
    load_layout("hh")

    assert shipped._shipped.cache_info().currsize == 1
