"""SARIF: the structure that the standard requires, and locations that point to the exact row."""

import gzip
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, ConfigDict, Field

from prefdata.cli import main
from prefdata.report.form import MOST_RESULTS
from prefdata.report.sarif import file_uri, to_sarif
from tests.prefdata.report.payloads import HARMFUL, TERMINAL, XSS
from tests.prefdata.report.synthetic import full_report

ROOT = Path("/work")
Level = Literal["none", "note", "warning", "error"]
Uri = Annotated[str, Field(pattern=r"^(file:///)?[\w.~%-][\w.~/%-]*$")]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Text(Strict):
    text: Annotated[str, Field(min_length=1)]


class Defaults(Strict):
    level: Level


class Rule(Strict):
    id: Annotated[str, Field(pattern=r"^(PD|R)\d{3}$")]
    name: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+$")]
    short_description: Annotated[Text, Field(alias="shortDescription")]
    full_description: Annotated[Text, Field(alias="fullDescription")]
    help: Text
    default_configuration: Annotated[Defaults, Field(alias="defaultConfiguration")]


class Driver(Strict):
    name: Literal["prefdata"]
    version: str
    rules: list[Rule]


class Tool(Strict):
    driver: Driver


class RuleRef(Strict):
    id: str
    index: Annotated[int, Field(ge=0)]


class Notification(Strict):
    level: Level
    message: Text
    associated_rule: Annotated[RuleRef | None, Field(alias="associatedRule")] = None


class Invocation(Strict):
    execution_successful: Annotated[bool, Field(alias="executionSuccessful")]
    notifications: Annotated[list[Notification], Field(alias="toolExecutionNotifications")]


class Location(Strict):
    uri: Uri
    index: Annotated[int | None, Field(ge=0)] = None


class Hashes(Strict):
    sha256: Annotated[str, Field(alias="sha-256", pattern="^[0-9a-f]{64}$")]


class Artifact(Strict):
    location: Location
    length: Annotated[int, Field(ge=0)]
    hashes: Hashes


class Region(Strict):
    start_line: Annotated[int, Field(alias="startLine", ge=1)]
    byte_offset: Annotated[int | None, Field(alias="byteOffset", ge=0)] = None


class Physical(Strict):
    artifact_location: Annotated[Location, Field(alias="artifactLocation")]
    region: Region


class Location(Strict):
    physical_location: Annotated[Physical, Field(alias="physicalLocation")]


class Result(Strict):
    rule_id: Annotated[str, Field(alias="ruleId")]
    rule_index: Annotated[int, Field(alias="ruleIndex", ge=0)]
    level: Level
    message: Text
    locations: list[Location]


class Run(Strict):
    tool: Tool
    invocations: list[Invocation]
    artifacts: list[Artifact]
    results: list[Result]
    column_kind: Annotated[Literal["unicodeCodePoints"], Field(alias="columnKind")]


class Log(Strict):
    schema_: Annotated[
        Literal["https://json.schemastore.org/sarif-2.1.0.json"], Field(alias="$schema")
    ]
    version: Literal["2.1.0"]
    runs: Annotated[list[Run], Field(min_length=1, max_length=1)]


def read(log: dict[str, Any]) -> Run:
    return Log.model_validate_json(json.dumps(log)).runs[0]


def validate(folder: Path, monkeypatch: pytest.MonkeyPatch, *files: str) -> Run:
    monkeypatch.chdir(folder)
    CliRunner().invoke(main, ["validate", *files, "--report", "out.sarif"])
    return read(json.loads((folder / "out.sarif").read_bytes()))


@pytest.mark.parametrize("text", ["", *XSS, *TERMINAL])
def test_a_log_has_the_standard_s_structure_with_any_text(text: str) -> None:
    log = to_sarif(full_report(text), ROOT)
    run = read(log)

    assert not HARMFUL & set(json.dumps(log, ensure_ascii=False))
    for result in run.results:
        assert run.tool.driver.rules[result.rule_index].id == result.rule_id


def test_every_finding_is_counted_in_full() -> None:
    report = full_report()
    run = read(to_sarif(report, ROOT))
    notes = " ".join(note.message.text for note in run.invocations[0].notifications)

    for finding in report.findings:
        listed = sum(result.rule_id == finding.code for result in run.results)
        assert listed == len(finding.examples)
        assert listed == finding.count or f"{finding.code}: {finding.count - listed:,} " in notes


@pytest.mark.parametrize("packed", [False, True])
def test_a_location_points_to_the_row(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    data = rows_file.read_bytes() + b'\n{"broken\n' + rows_file.read_bytes()[:40] + b"\n"
    name = "bad rows.jsonl" + (".gz" if packed else "")
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    run = validate(tmp_path, monkeypatch, name)

    assert [result.level for result in run.results] == ["error", "error"]
    for result in run.results:
        place = result.locations[0].physical_location
        assert place.artifact_location.uri == name.replace(" ", "%20")
        assert run.artifacts[place.artifact_location.index or 0].location.uri.startswith("bad%20")
        offset, line = place.region.byte_offset, place.region.start_line
        assert offset is not None
        assert data[offset:].split(b"\n")[0] == data.split(b"\n")[line - 1]


def test_a_log_lists_many_rows_of_a_code_and_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"{\n" * (MOST_RESULTS + 20))
    run = validate(tmp_path, monkeypatch, "bad.jsonl", "--layout", "hh")

    assert len(run.results) == MOST_RESULTS
    assert "R201: 20 more rows" in run.invocations[0].notifications[0].message.text


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("../up/a.jsonl", "../up/a.jsonl"),
        ("https://x/y", "https%3A/x/y"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("é\udcff.jsonl", "%C3%A9%FF.jsonl"),
        ("a\n\x1b.jsonl", "a%0A%1B.jsonl"),
    ],
)
def test_any_name_of_a_file_is_a_uri(name: str, uri: str) -> None:
    assert file_uri(name, ROOT) == uri


def test_a_build_lists_the_rows_that_it_refused(
    rows_file: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_file.write_bytes(rows_file.read_bytes() + b"{\n" * 30)
    monkeypatch.chdir(tmp_path)
    words = ["build", rows_file.name, "--tokenizer", str(tiny), "-o", "out"]
    result = CliRunner().invoke(main, [*words, "--report", "out.sarif"])
    run = read(json.loads((tmp_path / "out.sarif").read_bytes()))

    assert result.exit_code == 0, result.output
    assert [place.rule_id for place in run.results] == ["R201"] * 30
    assert not run.invocations[0].notifications
