"""docs/api.md: its session runs as it stands, and its list is that of the code."""

import doctest
from pathlib import Path

import pytest

from tests.dpo.conftest import save_gpt2

PAGE = Path(__file__).parents[1] / "docs/api.md"


def test_the_session_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_gpt2(tmp_path / "model", seed=0)
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")

    assert tried > 10
    assert failed == 0
    assert text.count(">>>") >= tried
