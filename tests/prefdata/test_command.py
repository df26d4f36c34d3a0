"""Wrapper of every command: one line, one code and one exit code for any exception."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dpo.errors import TrainingError
from prefdata.cli import main as prefdata
from prefdata.command import Command, Group, say
from prefdata.engine.local import Workers
from prefdata.errors import (
    EmptyError,
    LockedError,
    PrefdataError,
    UnexpectedError,
    UsageError,
    working_on,
)
from prefdata.report.safe import without_secrets
from tests.dpo.tiny import save_tiny

SECRET = "hf_abcdefghijklmnopqrstuvwxyz0123456789"


class OddError(Exception):
    """Exception that pickle cannot rebuild."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class PanicException(BaseException):
    """Panic of a Rust library, which is not an `Exception`."""


class OutOfMemoryError(RuntimeError):
    """Error as torch raises it."""


def invoke(error: BaseException | Callable[[], Any], *words: str) -> Result:
    @click.command(cls=Command, name="tool")
    def tool() -> None:
        if callable(error):
            error()
        else:
            raise error

    return CliRunner().invoke(tool, list(words), prog_name="tool")


def the_line(result: Result) -> str:
    assert "Traceback" not in result.output
    assert result.stderr.lstrip("\n").count("\n") == 1, result.stderr  # click ends the ^C
    return result.stderr.strip()


FORESEEN: dict[str, tuple[BaseException, int, str]] = {
    "usage": (UsageError("C102", "a.yaml", "is wrong", "fix"), 2, "a.yaml: is wrong; fix [C102]"),
    "empty": (EmptyError("E120", "inputs", "none", "look"), 3, "[E120]"),
    "locked": (LockedError("E141", "out", "held", "wait"), 4, "[E141]"),
    "training": (TrainingError("T301", "step 3", "NaN", "lower it"), 1, "[T301]"),
    "memory": (MemoryError(), 2, "memory ran out; lower workers"),
    "memory of a device": (OutOfMemoryError("CUDA"), 2, "[E191]"),
    "full disk": (OSError(errno.ENOSPC, "x", "out/a"), 2, "out/a: No space left on device; "),
    "quota": (OSError(errno.EDQUOT, "x", "out/a"), 2, "[E151]"),
    "file too large": (OSError(errno.EFBIG, "x", "out/a"), 2, "out/a: File too large; "),
    "full disk as Rust says it": (RuntimeError("I/O (os error 28)"), 2, "[E151]"),
    "long name": (OSError(errno.ENAMETOOLONG, "x", "n" * 500), 2, "shorter name [E192]"),
    "no permission": (PermissionError(errno.EACCES, "no", "a"), 2, "a: cannot be used (no); "),
    "files open": (OSError(errno.EMFILE, "Too many open files"), 2, "raise `ulimit -n` [E192]"),
    "circle of links": (OSError(errno.ELOOP, "Too many levels", "a"), 2, "form a cycle [E192]"),
    "locale": (UnicodeEncodeError("ascii", "é", 0, 1, "x"), 2, "if the name is right [E190]"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "run the same command again: what is done is kept"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORESEEN)
def test_an_expected_error_has_its_line_and_its_exit_code(kind: str) -> None:
    error, code, part = FORESEEN[kind]
    result = invoke(error)

    assert part in the_line(result)
    assert result.exit_code == code


UNFORESEEN: dict[str, BaseException] = {
    "type": TypeError("unsupported operand"),
    "key": KeyError("rejected"),
    "value of two lines": ValueError("first\nsecond"),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "end of file": EOFError("Compressed file ended"),
    "assertion": AssertionError(),
    "panic": PanicException("called `Option::unwrap()`"),
    "own arguments": OddError("a", "b"),
    "system without a file": OSError("no reason"),
    "UTF-8": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "escapes": ValueError("\x1b[31mred\u202e"),
    "very long": ValueError("x" * 100_000),
}


@pytest.mark.parametrize("kind", UNFORESEEN)
def test_an_unexpected_error_is_a_line_with_a_file(kind: str) -> None:
    error = UNFORESEEN[kind]
    result = invoke(error)
    line = the_line(result)
    file = Path(line.split("the traceback is in ")[1].split(";")[0])

    assert f"unexpected {type(error).__name__}" in line
    assert line.endswith("[X001]")
    assert len(line) < 500
    assert line.isprintable()
    assert result.exit_code == 70
    assert "Traceback (most recent call last)" in file.read_text()
    file.unlink()


def test_debug_prints_the_traceback_without_its_escapes() -> None:
    result = invoke(ValueError("\x1b[31mred " + SECRET), "--debug")

    assert "Traceback (most recent call last)" in result.stderr
    assert "\\x1b[31mred hf_***" in result.stderr
    assert "\x1b" not in result.output
    assert result.exit_code == 70
    Path(result.stderr.split("the traceback is in ")[1].split(";")[0]).unlink()


def test_the_place_is_the_innermost_that_was_worked_on() -> None:
    def work() -> None:
        with working_on("a.jsonl"), working_on("a.jsonl, part 3"):
            raise TypeError("x")

    assert the_line(invoke(work)).startswith("a.jsonl, part 3: unexpected TypeError: x; ")


class Task:
    """Work item with a description."""

    about = "rows.jsonl, part 7"


def raise_odd(_: Task) -> None:
    raise OddError("a", "b")


def raise_coded(_: Task) -> None:
    raise UsageError("E116", "a", "is a pipe", "name a file")


def raise_no_space(_: Task) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "out")


@pytest.mark.parametrize(
    ("function", "kind", "part"),
    [
        (raise_odd, UnexpectedError, "rows.jsonl, part 7: unexpected OddError: a and b"),
        (raise_coded, UsageError, "[E116]"),
        (raise_no_space, OSError, "No space"),
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_an_error_of_a_worker_process_comes_back_as_it_was(
    function: Callable[[Task], None], kind: type[Exception], part: str, number: int
) -> None:
    def work() -> None:
        with Workers(number) as workers:
            list(workers.map(function, [Task()]))

    if number == 2:
        with pytest.raises(kind) as caught:
            work()
        assert part in str(caught.value)
        assert "in raise_odd" in getattr(caught.value, "report", "in raise_odd")
        return
    result = invoke(work)
    line = the_line(result)
    assert part in line
    if kind is UnexpectedError:
        file = Path(line.split("the traceback is in ")[1].split(";")[0])
        assert "in raise_odd" in file.read_text()
        file.unlink()


MISUSES = {
    "an unknown option": ["--sevrity"],
    "a hostile option": ["--\x1b[31mred"],
    "an argument too many": ["one\x1b]0;owned\x07"],
    "an option without a value": ["--number"],
    "a value of another type": ["--number", "\u202eabc"],
}


@pytest.mark.parametrize("kind", MISUSES)
def test_a_misused_command_is_one_line(kind: str) -> None:
    @click.command(cls=Command)
    @click.option("--number", type=int)
    def tool(number: int) -> None:
        del number

    result = CliRunner().invoke(tool, MISUSES[kind], prog_name="tool")

    assert the_line(result).endswith("see `tool --help` [C121]")
    assert the_line(result).isprintable()
    assert result.exit_code == 2


def test_an_unknown_command_of_a_group_is_one_line() -> None:
    @click.group(cls=Group)
    def tools() -> None:
        pass

    result = CliRunner().invoke(tools, ["nothing\x1b[1m"], prog_name="tools")

    assert the_line(result).endswith("[C121]")


@pytest.mark.parametrize("name", ["b\udcff.jsonl", "\udc80", "a/\udcfe/b"])
def test_a_name_that_is_not_text_is_refused_with_its_bytes_shown(name: str) -> None:
    result = invoke(lambda: None, name)

    assert "is not text in utf-8; rename it" in the_line(result)
    assert "\\udc" in the_line(result)


@pytest.mark.parametrize(
    ("name", "value"),
    [("POLARS_MAX_THREADS", "0"), ("POLARS_MAX_THREADS", "many"), ("RAYON_NUM_THREADS", "-1"),
     ("OMP_NUM_THREADS", "x"), ("OMP_NUM_THREADS", "4,0"), ("MKL_NUM_THREADS", "1.5")],
)  # fmt: skip
def test_an_invalid_number_of_threads_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert the_line(invoke(lambda: None)).startswith(f"{name}={value}: is not a number of threads")


MASKED = {
    "https://user:pw@hub.example/org/model": "pw",
    f"https://{SECRET}@huggingface.co/org/model": SECRET,
    f"https://hub.example/m?token={SECRET}&x=1": SECRET,
    "https://s3.example/b?X-Amz-Signature=abcdef0123&y=2": "abcdef0123",
    "https://hub.example/m?access_token=opensesame": "opensesame",
    "s3://AKIAKEY:verysecret@bucket/data.jsonl": "verysecret",
    "Authorization: Bearer opensesame12": "opensesame12",
    "{'authorization': 'Basic dXNlcjpwdw=='}": "dXNlcjpwdw",
    f"token {SECRET} is not valid": SECRET,
    "https://hub.example/m?api_key=opensesame;z": "opensesame",
}


@pytest.mark.parametrize("text", MASKED)
def test_no_error_shows_a_secret(text: str) -> None:
    for raised in (
        UsageError("C110", text, f"cannot be loaded ({text})", "name it"),
        ValueError(text),
    ):
        line = the_line(invoke(raised))

        assert MASKED[text] not in line
        assert "***" in line
        if "traceback is in" in line:
            file = Path(line.split("the traceback is in ")[1].split(";")[0])
            assert MASKED[text] not in file.read_text()
            file.unlink()


@pytest.mark.parametrize("text", ["hf_transfer is off", "a?b=c", "http://a.b/c@d", "key=value"])
def test_text_without_a_secret_is_unchanged(text: str) -> None:
    assert without_secrets(text) == text


def test_a_reader_that_leaves_is_not_an_error() -> None:
    command = f"{sys.executable} -m prefdata explain | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert done.stdout.split()[-1] in {"0", "141"}  # 0 if all output was already in the pipe


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's")
def test_output_on_a_full_disk_is_one_line() -> None:
    command = f"{sys.executable} -m prefdata explain > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
    assert done.returncode == 2


def test_a_name_that_a_glob_matches_and_no_report_could_hold_is_refused(tmp_path: Path) -> None:
    for name in (b"a.jsonl", b"b\xff.jsonl"):
        (tmp_path / os.fsdecode(name)).write_text(
            '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
        )
    result = CliRunner().invoke(prefdata, ["validate", f"{tmp_path}/*.jsonl"])

    assert "b\\udcff.jsonl: is not text in UTF-8" in the_line(result)
    assert result.exit_code == 2


def interrupted(command: list[str], ready: Path) -> tuple[int, str]:
    """Send Ctrl-C to a command and its workers, as a terminal does, after a path exists."""

    def heed() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=heed,
    )  # fmt: skip
    while not ready.exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_ctrl_c_reaches_worker_processes_without_a_traceback(tmp_path: Path) -> None:
    tokenizer = save_tiny(tmp_path / "model")
    row = '{"prompt": "say {}", "chosen": " a {}", "rejected": " b {}"}\n'
    rows = "".join(row.replace("{}", str(number)) for number in range(100_000))
    (tmp_path / "many.jsonl").write_text(rows)
    out = tmp_path / "out"
    words = ["build", str(tmp_path / "many.jsonl"), "--tokenizer", tokenizer, "-o", str(out)]
    command = [sys.executable, "-m", "prefdata", *words, "--workers", "2", "--text", "verbatim"]
    code, output = interrupted(command, out / ".building")

    assert code == 130
    assert output.strip() == "stopped; run the same command again: what is done is kept"


def test_output_in_ascii_is_escaped_text(tmp_path: Path) -> None:
    rows = tmp_path / "日本é.jsonl"
    rows.write_text('{"prompt": "a b", "chosen": "é x", "rejected": "z"}\n')
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    for locale in (
        {},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefdata", "validate", str(rows)],
            capture_output=True, env={**environment, **locale}, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert b"Traceback" not in output
        assert done.returncode == (2 if "PYTHONUTF8" in locale else 0)
        assert output.isascii()


def test_an_error_is_of_the_shared_kind() -> None:
    assert not issubclass(TrainingError, PrefdataError)
    assert isinstance(TrainingError("T301", "a", "b", "c").__reduce__(), tuple)


def test_say_keeps_a_line_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1b[31m\u2028")

    assert capsys.readouterr().out == "a\\nb\\x1b[31m\\u2028\n"


@pytest.mark.parametrize("key", ["limits.max_depth", "inputs.weight", "leaks", "limits"])
def test_a_key_of_the_config_is_explained(key: str) -> None:
    for words in ([key], ["--help", key], ["-h", key]):
        done = CliRunner().invoke(prefdata, ["config", *words])
        assert done.exit_code == 0
        assert done.output.startswith(f"{key}\n  ")
        assert "default: " in done.output
    assert f"\n{key} " in CliRunner().invoke(prefdata, ["config"]).output


@pytest.mark.parametrize(("key", "near"), [("limits.max_dept", "max_depth"), ("leak", "leaks")])
def test_a_key_that_is_misspelled_names_the_nearest(key: str, near: str) -> None:
    done = CliRunner().invoke(prefdata, ["config", key])
    assert done.exit_code == 2
    assert f"did you mean {near!r}?" in done.output
