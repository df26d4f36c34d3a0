"""The sweep over architectures, on four of them: each row of its table, and its totals."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_table_says_how_each_type_runs() -> None:
    command = [sys.executable, "bench/architectures.py", "--only", "llama", "mamba", "bert", "emu3"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "|" in line]
    packs = {(row[0], row[1]): row[2] for row in rows if len(row) > 4}
    assert packs["llama", "tied"] == packs["llama", "longrope"] == "shared"
    assert packs["mamba", "untied"] == "unshared"
    assert packs["bert", "tied"] == "shared, own logits"
    assert packs["bert", "not a decoder"] == "refused T114"
    assert packs["emu3", "untied"] == "refused T102"
    totals = {row[0]: row[1] for row in rows if len(row) == 3}
    assert totals["wrong"] == totals["traceback"] == "0"
    assert totals["all"] == "4"


def test_an_unknown_type_is_named() -> None:
    command = [sys.executable, "bench/architectures.py", "--only", "lama"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "'lama'" in done.stderr
