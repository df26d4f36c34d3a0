"""How the code looks: small files that say what they are for, no code out of data, plain words."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("prefdata", "dpo", "pipelines", "bench")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MOST_AT_ROOT = 14
BANNED_NAMES = {"utils", "common", "helpers", "base", "misc"}
BANNED_CALLS = {"eval", "exec", "unsafe_load", "extractall"}
BANNED_WORDS = re.compile(
    r"(?<![`\"])\b(mend(s|ed|ing)?|told|tells? of|stead|besides?|hangs? together|at hand|alike"
    r"|parted|so many|goes on|takes? up|lets? go of|chief|in the mean(?! (of|over))|oddit(y|ies)"
    r"|(keeps?|in) (new |the others )?company"
    r"|(is|are) no (?!longer\b|more\b|less\b|other\b|such\b)[a-z]+)\b",
    re.IGNORECASE,
)
"""Words that a reader has to read twice; what to write in their place is in CONTRIBUTING.md."""
DATA = (
    *(".jsonl", ".gz", ".png", ".parquet", ".arrow", "beginnings.yaml"),
    *("tests/test_taste.py", "CONTRIBUTING.md"),
)
"""Files that quote rows, or this list."""


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_a_file_is_small_and_says_what_it_is_for() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in FILES
        for fault in (*faults_of_file(path), *long_functions(path))
    ]

    assert not wrong


def faults_of_file(path: Path) -> Iterator[str]:
    if not ast.get_docstring(parse(path)):
        yield "its first line does not say what it is for"
    if len(path.read_text(encoding="utf-8").splitlines()) > 400:
        yield "more than 400 lines"
    if path.stem in BANNED_NAMES:
        yield "a name that says nothing"


def long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno
            if lines >= 50:
                yield f"{node.name} has {lines} lines"


def test_few_files_lie_directly_in_a_package() -> None:
    for package in ("prefdata", "dpo"):
        assert len(list((ROOT / package).glob("*.py"))) <= MOST_AT_ROOT


def test_nothing_runs_what_a_file_brings() -> None:
    """No pickle, no code out of data, no remote code, no shell."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import | ast.Call) and is_dangerous(node)
    ]

    assert not wrong


def is_dangerous(node: ast.Import | ast.Call) -> bool:
    if isinstance(node, ast.Import):
        return bool({alias.name for alias in node.names} & {"pickle", "marshal", "shelve"})
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    is_torch_eval = isinstance(node.func, ast.Attribute) and name == "eval"
    return (name in BANNED_CALLS and not is_torch_eval) or any(
        keyword.arg in ("trust_remote_code", "shell")
        and getattr(keyword.value, "value", None) is True
        for keyword in node.keywords
    )


def test_a_code_of_the_trainer_is_one_file_s() -> None:
    """Codes are permanent: scripts distinguish problems by them."""
    homes: dict[str, set[str]] = {}
    for path in sorted((ROOT / "dpo").rglob("*.py")):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                code = getattr(node.args[0], "value", None) if node.args else None
                if isinstance(code, str) and len(code) == 4 and code[0] == "T":
                    homes.setdefault(code, set()).add(path.name)
    assert len(homes) > 30
    several = {code for code, files in homes.items() if len(files) > 1}
    assert several == {"T132", "T163", "T205", "T301"}, "one problem that is met in two places"


def list_files(*options: str) -> list[str]:
    """Return the names of the repository's files; skip the test where git or its history is not."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("git or the history of the repository is not here")
    command = ["git", "ls-files", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_what_commands_leave_is_not_committed() -> None:
    left = {".dpo-train.json", ".building", "manifest.json", "metrics.jsonl"}
    assert not [name for name in list_files("--cached") if left & {*Path(name).parts}]


def test_no_word_of_the_ban_list_is_in_code_messages_schemas_or_docs() -> None:
    found = [
        f"{name}:{number}: {match[0]}"
        for name in list_files("--cached", "--others", "--exclude-standard")
        if not name.endswith(DATA) and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
        for match in BANNED_WORDS.finditer(line)
    ]

    assert not found
