"""The notebook's cells run, in order, on a tiny model and the first rows."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.dpo.conftest import save_llama

RECIPE = Path(__file__).parents[2] / "pipelines/quickstart"
FEW_ROWS, FEW_STEPS = 40, 2


def test_its_cells_train_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = (RECIPE / "pairs.jsonl").read_text().splitlines(keepends=True)
    Path("pairs.jsonl").write_text("".join(rows[:FEW_ROWS]))
    model = save_llama(tmp_path / "model")
    cells = json.loads((RECIPE / "quickstart.ipynb").read_text())["cells"]
    first, *others = ("".join(one["source"]) for one in cells if one["cell_type"] == "code")
    names: dict[str, Any] = {}

    exec(first, names)
    assert names["MODEL"].endswith("SmolLM2-135M-Instruct")
    names |= {"MODEL": str(model), "STEPS": FEW_STEPS}
    for cell in others:
        exec(cell, names)

    assert names["report"].lines.lines == FEW_ROWS
    assert names["done"].steps == FEW_STEPS
    assert names["metrics"]["loss"][0] == pytest.approx(math.log(2), abs=1e-5)
    assert not [one for one in cells if one.get("outputs")]
