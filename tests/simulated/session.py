"""Validate, build and show in a simulated system, and set off a chat template's bombs."""

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from prefdata.cli import main
from prefdata.errors import LockedError
from prefdata.store.commit import lock_folder
from prefdata.tokens.template.limited import Limits, TemplateLimitError, TemplateProcess

BOMBS = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "1 s",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}": (
        "MiB"
    ),
}


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, [*words, "--debug"])
    assert result.exit_code == code, result.output
    return result.stdout


def commands(rows: str, other: str, tokenizer: str, out: str) -> None:
    assert "lines" in run("validate", rows, code=1)  # a row without answers
    for data in (other, rows):
        run("build", data, "--tokenizer", tokenizer, "-o", out, "--replace", "--workers", "2")
    assert "chosen:" in run("show", out, "--row", "3")


def locks(folder: Path) -> None:
    with lock_folder(folder), pytest.raises(LockedError), lock_folder(folder):
        pass
    with lock_folder(folder):
        pass


def bombs() -> None:
    for bomb, reason in BOMBS.items():
        source = "{% if messages %}" + bomb + "{% endif %}fine"
        process = TemplateProcess(source, None, {}, limits=Limits(seconds=1, num_bytes=64 << 20))
        message = {"role": "user", "content": "x"}
        with pytest.raises(TemplateLimitError, match=f"more than .*{reason}"):
            process.render([message], None, add_generation_prompt=False)
        assert process.render([], None, add_generation_prompt=False) == "fine"
        process.close()


if __name__ == "__main__":
    assert not hasattr(os, "sched_getaffinity")
    assert not Path("/proc/self/statm").exists()
    commands(*sys.argv[1:])
    locks(Path(sys.argv[4]))
    bombs()
