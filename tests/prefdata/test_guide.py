"""Commands of the guide "Clean your set in ten minutes": they do what the guide says."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main

GUIDE = (Path(__file__).parents[2] / "docs" / "clean-your-set.md").read_text()
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    line: str
    exit_code: int
    says: list[str]


def commands(block: str) -> Iterator[Command]:
    for text in block.removeprefix("$ ").split("\n$ "):
        first, *says = text.rstrip().split("\n")
        line, _, comment = first.partition("   # exit ")
        yield Command(line, int(comment or 0), says)


def test_every_command_of_the_guide_does_what_it_says(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    ran = 0
    for kind, name, block in BLOCK.findall(GUIDE):
        if name:
            Path(name).write_text(block)
        if kind != "console":
            continue
        for command in commands(block):
            line = command.line.replace("Qwen/Qwen3-0.6B", str(tiny))
            if not line.startswith("prefdata "):
                subprocess.run(line, shell=True, check=True)
                continue
            result = CliRunner().invoke(main, shlex.split(line)[1:])
            assert result.exit_code == command.exit_code, (line, result.output)
            words = " ".join(result.output.split())
            for said in command.says:
                assert " ".join(said.split()) in words, (line, said, result.output)
            ran += 1

    assert ran == 8
    lines = prefdata.open("clean").manifest.lines
    assert (lines.lines, lines.kept, lines.duplicates, lines.rejected) == (8, 4, 1, 3)
    assert Path("before.html").exists()
    assert Path("pairs.html").exists()
