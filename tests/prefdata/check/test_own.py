"""Checks of your own: found by their names, run in the workers, and part of a build's identity."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from prefdata.check import CheckLimits, RowChecks, examine_rows
from prefdata.check.catalog import catalog
from prefdata.check.rows.own import OwnCheck, check_of
from prefdata.config import make_config
from prefdata.errors import UsageError
from tests.prefdata.check.cases import GOOD

RecordsOf = Callable[..., pa.Table]
MODULE = '''
def short(row, *, least=3):
    """An answer has too few words.

    Leave the row out,
    or lower `least`.
    """
    words = len(row["chosen"][-1]["content"].split())
    return f"{words}\\nwords" if words < least else None


def nothing(row):
    assert row["prompt"][0]["content"].strip(), "a blank prompt is refused before"


def wrong(row):
    return row["line"] > 1


def broken(row, *, key="none"):
    return row[key]


def leaves(row):
    raise SystemExit(3)


def listed(row, *, words=("a",)):
    return f"{type(words).__name__} {words}"


def long(row):
    return "\\ud800" + 999 * "x"


async def later(row):
    return "late"


def each(row):
    yield "one"


limit = 3
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write MODULE into the working directory, under a name that no other test uses."""
    name = f"own_{tmp_path.name.rstrip('_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    sys.modules.pop(name, None)


def checks_of(*names: str, level: str = "W", **settings: int) -> RowChecks:
    limits = CheckLimits(own=dict.fromkeys(names, settings))
    return RowChecks.of(dict.fromkeys(names, level), limits=limits)


def test_a_finding_is_reported_counted_or_refused(records_of: RecordsOf, module: str) -> None:
    records = records_of(GOOD | {"chosen": "one two three"}, GOOD | {"chosen": "just two"})
    code, message = f"{module}:short", "short: 2 words"

    for level in ("E", "W", "I", "off"):
        seen = examine_rows(records, checks_of(code, level=level))
        refused = [(row["code"], row["line"], row["message"]) for row in seen.refused.to_pylist()]

        assert refused == [(code, 2, message)] * (level == "E")
        for found, own in ((seen.reported, "W"), (seen.counted, "I")):
            places = [
                (met.num, met.first[0].line, met.first[0].message)
                for c, met in found.items()
                if c == code
            ]
            assert places == [(1, 2, message)] * (level == own)


def test_settings_are_those_of_the_config(records_of: RecordsOf, module: str) -> None:
    records = records_of(GOOD | {"chosen": "one two three"})

    assert examine_rows(records, checks_of(f"{module}:short", least=4)).reported
    assert not examine_rows(records, checks_of(f"{module}:short", least=2)).reported


def test_a_setting_may_be_a_list(records_of: RecordsOf, module: str) -> None:
    limits = CheckLimits(own={f"{module}:listed": {"words": ["no", 1, True]}})

    seen = examine_rows(records_of(GOOD), RowChecks.of({}, limits=limits))

    (place,) = seen.reported[f"{module}:listed"].first
    assert place.message == "listed: list ['no', 1, True]"


def test_only_rows_that_passed_the_other_checks_are_asked(
    records_of: RecordsOf, module: str
) -> None:
    records = records_of(GOOD, GOOD | {"prompt": " "}, GOOD)

    seen = examine_rows(records, checks_of(f"{module}:nothing"))

    assert (seen.kept.num_rows, seen.refused["code"].to_pylist()) == (2, ["PD201"])
    with pytest.raises(UsageError, match=r":2: the check .* AssertionError: a blank prompt"):
        examine_rows(
            records, RowChecks.of({"PD201": "W"}, limits=CheckLimits(own={f"{module}:nothing": {}}))
        )


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("broken", r":1: .* raised KeyError: 'none' \(own_.*\.py:\d+\)"),
        ("wrong", ":1: .* returned False"),
        ("leaves", r":1: .* raised SystemExit: 3 \(own_.*\.py:\d+\)"),
    ],
)
def test_a_faulty_function_is_a_coded_error_with_the_row(
    records_of: RecordsOf, module: str, function: str, said: str
) -> None:
    with pytest.raises(UsageError, match=rf"{said}; fix the function.* \[C123\]$"):
        examine_rows(records_of(GOOD, GOOD), checks_of(f"{module}:{function}"))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("no_such_module_:f", {}, "cannot be used (ModuleNotFoundError: "),
        ("MODULE:absent", {}, "cannot be used (AttributeError: "),
        ("MODULE:limit", {}, "is not a function"),
        ("MODULE:later", {}, "it is async or a generator; write a plain function"),
        ("MODULE:each", {}, "it is async or a generator; write a plain function"),
        ("short", {}, "neither module:function nor one of the entry points prefdata.checks"),
        ("PD301", {}, "'PD301' is the code of a shipped check"),
        ("MODULE:short", {"most": 1}, "unexpected keyword argument 'most'"),
        ("MODULE:short", {"least": {"a": 1}}, "least: it should be a text, a finite"),
        ("MODULE:short", {"least": float("nan")}, "least: it should be a text, a finite"),
        ("MODULE:listed", {"words": [1, float("inf")]}, "words: it should be a text"),
    ],
)
def test_a_check_that_cannot_be_used_is_an_error_of_the_config(
    module: str, name: str, settings: dict[str, object], said: str
) -> None:
    own = {name.replace("MODULE", module): settings}

    with pytest.raises(UsageError) as error:
        make_config(
            {"inputs": ["a"], "tokenizer": "t", "out": "o", "checks": {"own": own}}, place="config"
        )

    assert error.value.code == "C102"
    assert error.value.problem.startswith("checks.own")
    assert said in error.value.problem


@pytest.mark.parametrize(
    "limits", [{"min_margin": float("nan")}, {"score_range": [0, float("inf")]}]
)
def test_a_threshold_is_a_finite_number(limits: dict[str, object]) -> None:
    value = {"inputs": ["a"], "tokenizer": "t", "out": "o", "checks": limits}

    with pytest.raises(UsageError, match=r"should be a finite number.*\[C102\]$"):
        make_config(value, place="config")


def test_the_texts_are_those_of_the_docstring(module: str) -> None:
    check = check_of(f"{module}:short")

    assert (check.code, check.name, check.severity) == (f"{module}:short", "short", "W")
    assert check.meaning == "An answer has too few words."
    assert check.advice == "Leave the row out, or lower `least`."
    assert check_of(f"{module}:nothing").meaning.endswith(".")


def test_an_entry_point_is_named_without_its_module(
    records_of: RecordsOf, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "others_checks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others-checks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[prefdata.checks]\n{module} = {module}:short\n")
    monkeypatch.syspath_prepend(tmp_path)

    seen = examine_rows(records_of(GOOD | {"chosen": "two words"}), checks_of(module))

    assert seen.reported[module].first[0].message == f"{module}: 2 words"
    assert check_of(module).meaning == "An answer has too few words."


def test_a_worker_with_another_version_of_the_file_is_an_error(
    records_of: RecordsOf, module: str
) -> None:
    stale = checks_of(f"{module}:short")._replace(own=(OwnCheck(f"{module}:short", {}, "0" * 64),))

    with pytest.raises(UsageError, match=r"changed since the build began.*\[E115\]$"):
        examine_rows(records_of(GOOD), stale)


def test_a_config_without_own_checks_is_written_as_before(module: str) -> None:
    assert "own" not in CheckLimits().model_dump()
    assert CheckLimits(own={f"{module}:short": {}}).model_dump()["own"] == {f"{module}:short": {}}


def prefdata(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path != str(folder))
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [str(Path(sys.executable).parent / "prefdata"), *words],
        capture_output=True, text=True, check=False, cwd=folder, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_a_build_in_two_processes_refuses_what_the_function_finds(
    module: str, tmp_path: Path, tiny: Path
) -> None:
    code = f"{module}:short"
    for number in range(2):
        rows = [
            {
                "prompt": f"{number}q{n} ?",
                "chosen": "yes" if n == 7 else f"one two {n}",
                "rejected": " no",
            }
            for n in range(20)
        ]
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "inputs": ["0.jsonl", "1.jsonl"],
        "tokenizer": str(tiny),
        "out": "out",
        "workers": 2,
        "text": "chat",
        "checks": {"own": {code: {"least": 2}}},
        "severity": {code: "E"},
    }
    (tmp_path / "build.yaml").write_text(yaml.safe_dump(config))

    done = prefdata(tmp_path, "build", "build.yaml")

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (finding,) = (one for one in report["findings"] if one["code"] == code)
    assert (finding["count"], finding["severity"], finding["name"]) == (2, "E", "short")
    assert finding["meaning"] == "An answer has too few words."
    assert [place["line"] for place in finding["examples"]] == [8, 8]
    assert report["severity_changes"] == [{"code": code, "was": "W", "now": "E"}]
    rejected = parquet.read_table(tmp_path / "out" / "rejected" / "rejected-00000-of-00001.parquet")
    assert rejected["message"].to_pylist() == ["short: 1 words"] * 2
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["config"]["checks"]["own"] == {code: {"least": 2}}

    again = prefdata(tmp_path, "build", "build.yaml")
    assert again.returncode == 0, again.stderr
    with (tmp_path / f"{module}.py").open("a") as file:
        file.write("# another version\n")
    changed = prefdata(tmp_path, "build", "build.yaml")
    assert (changed.returncode, "[E142]" in changed.stderr) == (2, True)


@pytest.mark.slow
def test_commands_take_a_check_of_your_own(module: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"})
    )

    found = prefdata(tmp_path, "validate", "rows.jsonl", "--check", f"{module}:short")
    wrong = prefdata(tmp_path, "validate", "rows.jsonl", "--check", f"{module}:absent")
    explained = prefdata(tmp_path, "explain", f"{module}:short")
    unknown = prefdata(tmp_path, "explain", f"{module}:absent")

    assert (found.returncode, f"{module}:short" in found.stdout) == (0, True), found.stderr
    assert (wrong.returncode, "[C102]" in wrong.stderr) == (2, True)
    assert explained.stdout.splitlines()[:2] == [
        f"{module}:short short (W)",
        "An answer has too few words.",
    ]
    assert (unknown.returncode, "[C140]" in unknown.stderr) == (2, True)


def test_a_message_is_valid_text_of_bounded_length(records_of: RecordsOf, module: str) -> None:
    seen = examine_rows(records_of(GOOD), checks_of(f"{module}:long", level="E"))

    assert seen.refused["message"].to_pylist() == ["long: ?" + 499 * "x"]


def test_a_worker_without_the_module_is_a_coded_error(records_of: RecordsOf) -> None:
    there = RowChecks.of()._replace(own=(OwnCheck("not_here_:f", {}, "0" * 64),))
    there = there._replace(severity={**there.severity, "not_here_:f": "W"})

    with pytest.raises(UsageError, match=r"'not_here_:f' cannot be used .* in a worker.*\[C123\]$"):
        examine_rows(records_of(GOOD), there)


def test_no_shipped_code_is_spelled_as_a_function() -> None:
    assert not any(":" in code for code in catalog())
