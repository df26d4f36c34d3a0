"""The code stays small: no file above 400 lines, no function above 50."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("prefdata", "dpo", "pipelines", "bench")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
BANNED_NAMES = {"utils", "common", "helpers", "base", "misc"}
BANNED_CALLS = {"eval", "exec", "unsafe_load", "extractall"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_small_and_says_what_it_is_for(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)

    assert ast.get_docstring(tree), "the first line of the docstring is the file's one reason"
    assert len(source.splitlines()) <= 400
    assert path.stem not in BANNED_NAMES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_brings(path: Path) -> None:
    """No pickle, no code out of data, no remote code, no shell."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            is_torch_eval = isinstance(node.func, ast.Attribute) and name == "eval"
            assert name not in BANNED_CALLS or is_torch_eval, name
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                assert not (keyword.arg in ("trust_remote_code", "shell") and value is True)


def test_a_code_of_the_trainer_is_one_file_s() -> None:
    """Codes are permanent: scripts tell problems apart by them."""
    homes: dict[str, set[str]] = {}
    for path in sorted((ROOT / "dpo").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error"):
                code = getattr(node.args[0], "value", None) if node.args else None
                if isinstance(code, str) and len(code) == 4 and code[0] == "T":
                    homes.setdefault(code, set()).add(path.name)
    assert len(homes) > 30
    several = {code for code, files in homes.items() if len(files) > 1}
    assert several == {"T132", "T163", "T205", "T301"}, "one problem that is met in two places"
