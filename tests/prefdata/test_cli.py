"""Commands: one line for a mistake, its exit code, and no escape sequence from data."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result
from inline_snapshot import snapshot

from prefdata.check.catalog import all_checks
from prefdata.cli import main
from prefdata.report.explain import errors
from prefdata.report.safe import plain


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error_line(result: Result) -> str:
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def test_every_command_has_help_with_an_example() -> None:
    for name in main.commands:
        result = run(name, "--help")

        assert result.exit_code == 0
        assert f"prefdata {name}" in result.output.split("Example")[1]


def test_build_then_show(rows_file: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    built = run("build", rows_file, "--tokenizer", tiny, "-o", out)
    shown = run("show", out)
    row = run("show", out, "--row", "3")

    assert (built.exit_code, shown.exit_code, row.exit_code) == (0, 0, 0), built.output
    assert "Where every line went" in built.stdout
    assert built.stdout.startswith(shown.stdout)
    assert "chosen:" in row.stdout
    assert "<|im_start|>assistant" in row.stdout
    assert run("show", out, "--row", "999").exit_code == 2


def test_a_config_file_and_the_command_line_make_the_same_build(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    config = tmp_path / "build.yaml"
    config.write_text(f"inputs: [{rows_file}]\ntokenizer: {tiny}\nout: {tmp_path}/a\n")
    one = run("build", config)
    other = run("build", rows_file, "--tokenizer", tiny, "-o", tmp_path / "b")

    assert one.stdout.split()[-1] == other.stdout.split()[-1]


def test_validate_reports_by_its_exit_code(rows_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(rows_file.read_bytes() + b"{\n")
    report = tmp_path / "report.json"

    assert run("validate", rows_file).exit_code == 0
    assert run("validate", bad, "--report", report).exit_code == 1
    assert run("validate", bad, "--fail-on", "never").exit_code == 0
    assert orjson.loads(report.read_bytes())["findings"][0]["code"] == "R201"


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ("max_lenght: 3", 2, "did you mean 'max_length'? [C101]"),
        ("shard_rows: many", 2, "[C102]"),
        ("inputs: [nothing.jsonl]", 2, "[E100]"),
        ("layout: nonsense", 2, "[C150]"),
        (": [", 2, "[C100]"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(
    rows_file: Path, tiny: Path, tmp_path: Path, config: str, code: int, message: str
) -> None:
    path = tmp_path / "build.yaml"
    whole = f"inputs: ['{rows_file}']\ntokenizer: '{tiny}'\nout: '{tmp_path}/out'\n"
    path.write_text(config if "inputs" in config else whole + config)
    if "inputs" in config:
        path.write_text(f"{config}\ntokenizer: '{tiny}'\nout: '{tmp_path}/out'\n")
    result = run("build", path)

    assert result.exit_code == code
    assert error_line(result).endswith(message)
    assert not (tmp_path / "out").exists()


def test_messages_have_the_expected_text(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("tokeniser: x\n")
    lines = [
        error_line(run("build", config)).replace(str(tmp_path), "T"),
        error_line(run("build", "a.jsonl", "--tokenizer", "x")),
        error_line(run("show", tmp_path)).replace(str(tmp_path), "T"),
        error_line(run("explain", "PD000")).split(";")[0],
    ]

    assert lines == snapshot(
        [
            "T/c.yaml: tokeniser: no such key; did you mean 'tokenizer'? [C101]",
            "command line: out is missing; add `out: …` to the config, or --out [C103]",
            "T: has no manifest.json, so no build was finished here; "
            "run `prefdata build` again [E132]",
            "PD000: no such code",
        ]
    )


def test_a_name_with_escapes_cannot_write_to_the_terminal(tmp_path: Path, rows_file: Path) -> None:
    evil = tmp_path / "a\x1b]0;owned\x07\x1b[31m\u202e.jsonl"
    evil.write_bytes(rows_file.read_bytes() + b"{}\n")
    outputs = [run("validate", evil), run("validate", str(evil) + "x"), run("show", evil)]

    assert all(char not in result.output for result in outputs for char in "\x1b\x07\u202e")


def test_every_code_is_explained() -> None:
    for code in [*all_checks(), *errors()]:
        result = run("explain", code)

        assert result.exit_code == 0
        assert result.output.startswith(f"{code} ")


def test_plain_text_keeps_what_is_harmless() -> None:
    assert plain("é 日本 😀 שלום\u00a0") == "é 日本 😀 שלום\u00a0"
    assert plain("\x00\x9b\u2066") == "\\x00\\x9b\\u2066"


def heed_ctrl_c() -> None:
    """Restore the signal, which background jobs of a shell and their children ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("number", "workers", "code"),
    [(signal.SIGINT, 1, 130), (signal.SIGTERM, 1, 143), (signal.SIGTERM, 2, 143)],
)
def test_a_signal_ends_a_build_in_one_line_with_its_own_exit_code(
    number: int, workers: int, code: int, tiny: Path, tmp_path: Path
) -> None:
    """Interrupt a build of enough rows in the middle; a warning would be one more line."""
    many, out = tmp_path / "many.jsonl", tmp_path / "out"
    row = {"prompt": "say {}", "chosen": " a {}", "rejected": " b {}"}
    many.write_text("".join(json.dumps(row).replace("{}", str(n)) + "\n" for n in range(200_000)))
    command = [sys.executable, "-m", "prefdata", "build", str(many), "--tokenizer", str(tiny)]
    process = subprocess.Popen(
        [*command, "-o", str(out), "--workers", str(workers)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    while not (out / ".building" / "parts").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)

    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == code
    assert errors.strip() == "stopped; run the same command again: what is done is kept"
    assert "Traceback" not in errors
    assert not (out / "manifest.json").exists()
