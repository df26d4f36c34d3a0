"""Both packages as libraries: every name in `__all__` exists, and importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dpo
import prefdata

PACKAGES = {"dpo": dpo, "prefdata": prefdata}


@pytest.mark.parametrize("package", [dpo, prefdata])
def test_every_public_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name).__doc__ or name == "losses"


@pytest.mark.parametrize("package", ["dpo", "prefdata"])
def test_importing_brings_no_torch_and_no_transformers(package: str) -> None:
    code = f"import sys, {package}; assert not {{'torch', 'transformers'}} & set(sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recipes_use_public_names_only() -> None:
    """They show what users can write: commands, and names of `__all__`.

    The loop, the noise experiment, win rates and the reward benchmark are programs: they read
    manifests and write files as the packages do, and so are settings.
    """
    used = [
        (path.name, node.module, alias.name)
        for path in (Path(__file__).parents[1] / "pipelines").rglob("*.py")
        if path.parent.name not in ("loop", "noise", "win_rates", "reward")
        and path.name not in ("commands.py", "settings.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
    ]

    assert used
    assert not [one for one in used if one[2] not in getattr(PACKAGES.get(one[1]), "__all__", ())]
