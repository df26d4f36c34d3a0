"""Any argument on the command line: one coded line, never X001, and no foreign file touched."""

import json
import os
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dpo.cli import export, judge, ref, report, sample, score, train
from prefdata.cli import main
from tests.census import snapshot
from tests.dpo.conftest import build_pairs, save_gpt2

NAMES = {
    "500 letters": "n" * 500,
    "500 letters of a path": "d/" + "n" * 500,
    "5,000 letters": "n/" * 2500,
    "nothing": "",
    "the root": "/",
    "this directory": ".",
    "the one above": "..",
    "a directory": "folder",
    "a directory with a slash": "folder/",
    "a file with a slash": "file.txt/",
    "a file as a directory": "file.txt/x",
    "a circle of links": "circle",
    "a link to nothing": "nowhere",
    "a pipe": "pipe",
    "a socket": "socket",
    "a device": "/dev/null",
    "an endless device": "/dev/zero",
    "an empty file": "empty",
    "bytes": "bytes",
    "a home": "~",
    "stdin": "-",
    "spaces": "   ",
    "a bracket": "[",
    "a star": "*",
    "brackets of a glob": "**/**/[!a]*",
    "a quote": "'\"`$(x)",
    "a colon": "a:b:c",
    "an URL": "https://example.invalid/x",
    "a scheme": "hf://datasets/x",
    "a surrogate": "b\udcff",
    "a newline": "a\nb",
    "a flag": "--",
}
ROLES: dict[str, tuple[click.Command, list[str]]] = {
    "validate FILES": (main, ["validate", "@"]),
    "validate --layout": (main, ["validate", "rows.jsonl", "--layout", "@"]),
    "validate --tokenizer": (main, ["validate", "rows.jsonl", "--tokenizer", "@"]),
    "validate --severity": (main, ["validate", "rows.jsonl", "--severity", "@"]),
    "validate --evaluation": (main, ["validate", "rows.jsonl", "--evaluation", "@"]),
    "validate --baseline": (main, ["validate", "rows.jsonl", "--baseline", "@"]),
    "validate --report": (main, ["validate", "rows.jsonl", "--report", "@"]),
    "build FILES": (main, ["build", "@", "--tokenizer", "model", "-o", "out"]),
    "build CONFIG": (main, ["build", "@.yaml"]),
    "build --tokenizer": (main, ["build", "rows.jsonl", "--tokenizer", "@", "-o", "out"]),
    "build --out": (main, ["build", "rows.jsonl", "--tokenizer", "model", "-o", "@"]),
    "build --exclude": (
        main,
        ["build", "rows.jsonl", "--tokenizer", "model", "-o", "out", "--exclude", "@"],
    ),
    "show OUT": (main, ["show", "@"]),
    "show --html": (main, ["show", "data", "--html", "@"]),
    "show --suspects": (main, ["show", "data", "--html", "new.html", "--suspects", "@"]),
    "layouts NAME": (main, ["layouts", "@"]),
    "explain CODE": (main, ["explain", "@"]),
    "dpo-ref DATA": (ref, ["@", "--model", "model"]),
    "dpo-ref --model": (ref, ["data", "--model", "@"]),
    "dpo-ref --name": (ref, ["data", "--model", "./none", "--name", "@"]),
    "dpo-train CONFIG": (train, ["@"]),
    "dpo-train override": (train, ["train.yaml", "@"]),
    "dpo-train model": (train, ["train.yaml", "model=@"]),
    "dpo-train data": (train, ["train.yaml", "data=@"]),
    "dpo-sample PROMPTS": (sample, ["@", "--model", "model", "-o", "samples"]),
    "dpo-sample --model": (sample, ["prompts.jsonl", "--model", "@", "-o", "samples"]),
    "dpo-sample --scorer": (
        sample,
        ["prompts.jsonl", "--model", "model", "-o", "samples", "--scorer", "@"],
    ),
    "dpo-sample --out": (sample, ["prompts.jsonl", "--model", "./none", "-o", "@"]),
    "dpo-sample --server": (sample, ["prompts.jsonl", "--server", "@", "-o", "samples"]),
    "dpo-judge FILE": (judge, ["@", "--scorer", "reward-model:none", "-o", "verdicts"]),
    "dpo-judge --out": (judge, ["rows.jsonl", "--scorer", "reward-model:none", "-o", "@"]),
    "dpo-judge --template": (
        judge,
        ["rows.jsonl", "--server", "ftp://none", "--template", "@", "-o", "verdicts"],
    ),
    "dpo-judge --compare": (judge, ["rows.jsonl", "--compare", "@"]),
    "dpo-export RUN": (export, ["@", "-o", "exported"]),
    "dpo-export --step": (export, ["data", "-o", "exported", "--step", "@"]),
    "dpo-report RUN": (report, ["@", "data"]),
    "dpo-report --out": (report, ["data", "model", "-o", "@"]),
    "dpo-score MODEL": (score, ["@", "data", "--reference", "model", "-o", "scores"]),
    "dpo-score DATA": (score, ["model", "@", "--reference", "model", "-o", "scores"]),
}


WAIT_FOR_A_WRITER = ("validate --baseline", "dpo-train CONFIG")
"""Commands that read pipes, such as `<(command)`, and so wait for a writer as `cat` does."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with one of each kind of file."""
    desk = tmp_path_factory.mktemp("desk")
    model = save_gpt2(desk / "model", seed=0)
    build_pairs(desk / "data", tokenizer=model, count=8)
    (desk / "folder" / "inside").mkdir(parents=True)
    (desk / "folder" / "mine.txt").write_text("mine")
    (desk / "file.txt").write_text("mine")
    (desk / "empty").touch()
    (desk / "bytes").write_bytes(bytes(range(256)))
    (desk / "circle").symlink_to("circle")
    (desk / "nowhere").symlink_to("gone")
    os.mkfifo(desk / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(desk / "socket"))
    rows = [{"prompt": f"Say {n}", "chosen": f" yes {n}", "rejected": f" no {n}"} for n in range(8)]
    (desk / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (desk / "prompts.jsonl").write_text('{"prompt": "Tell me"}\n')
    (desk / "train.yaml").write_text("model: ./none\ndata: data\nout: run\nsteps: 1\n")
    return desk


@pytest.mark.parametrize("role", ROLES)
def test_any_name_in_any_place_is_a_result_or_one_coded_line(
    role: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    command, words = ROLES[role]
    faults = []
    for kind, name in NAMES.items():
        if kind == "a pipe" and role in WAIT_FOR_A_WRITER:
            continue
        before = snapshot(desk)
        done = CliRunner().invoke(command, [word.replace("@", name) for word in words])
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        is_coded = bool(lines) and lines[-1].endswith("]")
        if done.exit_code not in (0, 1) and not (done.exit_code in (2, 3) and is_coded):
            faults.append((kind, done.exit_code, lines[-1:], repr(done.exception)))
        if "Traceback" in done.output or "[X001]" in done.output:
            faults.append((kind, done.exit_code, lines[-1:], repr(done.exception)))
        after = snapshot(desk)
        changed = {path for path, content in before.items() if after.get(path) != content}
        if changed:
            faults.append((kind, "changed", sorted(changed), None))
    assert not faults
