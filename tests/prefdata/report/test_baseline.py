"""New findings of a report, notes on changed severities, and datasets that are refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from prefdata.building import build
from prefdata.check import CheckLimits
from prefdata.cli import main
from prefdata.config import make_config
from prefdata.errors import EmptyError, UsageError
from prefdata.report.form import new_findings, read_report
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.conftest import chat_rows, write_rows

BLANK = {
    "prompt": [{"role": "user", "content": "q"}],
    "chosen": [{"role": "assistant", "content": ""}],
    "rejected": [{"role": "assistant", "content": "b"}],
}
NAMED = BLANK | {"chosen": [{"role": "assistant", "content": "No. Human: why?"}]}


def run(*arguments: str | Path) -> int:
    return CliRunner().invoke(main, [str(argument) for argument in arguments]).exit_code


def test_only_findings_that_the_baseline_lacks_fail(tmp_path: Path) -> None:
    rows, report = tmp_path / "rows.jsonl", tmp_path / "report.json"
    write_rows(rows, [*chat_rows(10), BLANK])
    assert run("validate", rows, "--report", report) == 1
    assert run("validate", rows, "--baseline", report) == 0

    write_rows(rows, [*chat_rows(10), BLANK, NAMED])
    assert run("validate", rows, "--baseline", report) == 0
    assert run("validate", rows, "--baseline", report, "--fail-on", "warning") == 1

    write_rows(rows, [*chat_rows(10), BLANK, BLANK])
    assert run("validate", rows, "--baseline", report) == 1
    assert run("validate", rows, "--baseline", report, "--fail-on", "never") == 0


def test_a_graver_severity_is_new(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [*chat_rows(10), NAMED])
    before = validate([str(rows)])
    after = validate([str(rows)], ValidateOptions(severity={"PD209": "E"}))

    assert [finding.code for finding in new_findings(after, before)] == ["PD209"]
    assert after.notes == ["PD209 role_marker_text is E here, and W by default"]


def test_a_baseline_that_is_not_a_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    for name in ("x.json", "absent.json"):
        with pytest.raises(UsageError, match=r"\[C160\]$"):
            read_report(tmp_path / name)


def test_files_named_after_splits_must_not_share_prompts(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "train.jsonl", chat_rows(20))
    other = write_rows(tmp_path / "test.jsonl", [chat_rows(3)[2], *chat_rows(30)[25:]])
    changed = json.loads(other.read_text().splitlines()[0])
    changed["chosen"][0]["content"] = "Something else."
    other.write_text(json.dumps(changed) + "\n" + "".join(other.read_text().splitlines(True)[1:]))

    found = {one.code: one for one in validate([str(first), str(other)]).findings}

    assert (found["PD501"].count, found["PD501"].severity) == (1, "E")
    (example,) = found["PD501"].examples
    assert (example.source, example.line) == (str(first), 3)
    assert example.message.endswith(f"is in test: {other}:1")


def test_a_set_that_is_an_error_is_not_built(tmp_path: Path, tiny: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(60))
    values = {
        "inputs": [str(rows)],
        "tokenizer": str(tiny),
        "out": tmp_path / "out",
        "checks": {"max_pairs_per_prompt": 1},
        "severity": {"PD405": "E"},
    }

    with pytest.raises(EmptyError, match=r"\[E121\]$"):
        build(make_config(values, place="test"))
    assert not (tmp_path / "out").exists()


def test_thresholds_are_set_by_the_config(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(10))
    options = ValidateOptions(checks=CheckLimits(max_chars=10))

    assert {one.code for one in validate([str(rows)], options).findings} >= {"PD310"}


def test_the_command_line_changes_severities_and_names_evaluations(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [*chat_rows(10), BLANK])
    (tmp_path / "eval.txt").write_text("What is 7 + 1? é 😀 \n")

    assert run("validate", rows, "--severity", "PD202=W") == 0
    assert run("validate", rows, "--severity", "PD202=off", "--severity", "PD201=I") == 0
    assert run("validate", rows, "--severity", "PD202=loud") == 2
    assert run("validate", rows, "--severity", "PD999=W") == 2
    evaluation = ("--evaluation", tmp_path / "eval.txt")
    assert run("validate", rows, "--severity", "PD202=W", *evaluation) == 1


def test_a_column_that_only_some_rows_have_is_reported(tmp_path: Path) -> None:
    rows = chat_rows(10)
    for row in rows:
        row["note"] = "in all"
    rows[7]["extra"] = 1
    report = validate([str(write_rows(tmp_path / "rows.jsonl", rows))])
    found = {one.code: one for one in report.findings}["PD105"]

    assert (found.count, found.severity) == (1, "W")
    assert found.examples[0].message == "schema_drift: `extra` in 1 of 10 rows"


def test_two_processes_report_what_one_does(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(60))
    alone = validate([str(rows)], ValidateOptions(workers=1))

    assert validate([str(rows)], ValidateOptions(workers=2)) == alone


def test_unpaired_rows_of_one_label_are_reported(tmp_path: Path) -> None:
    """Check a hundred prompts with one bad answer and five good ones each."""
    rows: list[dict[str, object]] = [
        {"prompt": f"Say {n}", "completion": f" {n} {answer}", "label": answer > 0}
        for n in range(100)
        for answer in range(6)
    ]
    report = validate([str(write_rows(tmp_path / "rows.jsonl", rows))])
    assert [one.count for one in report.findings if one.code == "PD605"] == [500]

    rows = [row for row in rows if row["label"] is False or str(row["completion"])[-1] < "5"]
    report = validate([str(write_rows(tmp_path / "fewer.jsonl", rows))])
    assert "PD605" not in {one.code for one in report.findings}


def test_near_duplicates_are_searched_for_if_requested(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(40))
    rows: list[dict[str, object]] = [
        {"prompt": f"Repeat: {words}{more}", "chosen": f" {words}", "rejected": " no"}
        for more in ("", " please")
    ]
    path = str(write_rows(tmp_path / "rows.jsonl", rows))
    runner = CliRunner()

    assert "PD402" not in runner.invoke(main, ["validate", path]).output
    assert "PD402" in runner.invoke(main, ["validate", path, "--near"]).output
