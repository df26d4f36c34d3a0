"""constraints.txt pins every direct and transitive dependency of the project."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NEVER_HERE = {"ray"}  # 60 more packages, needed only by its extra
OF_CUDA = ("cuda-", "nvidia-", "triton")
"""Packages that torch of a build for CUDA brings; which ones is its own affair."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought() -> set[str]:
    """Return the names of all packages installed with every extra except Ray's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], *(extras[name] for name in extras if name not in NEVER_HERE)]
    waiting = [Requirement(text) for each in lists for text in each]
    found: set[str] = set()
    while waiting:
        one = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        if normal(one.name) in found or normal(one.name).startswith(OF_CUDA):
            continue
        found.add(normal(one.name))
        try:
            waiting += [Requirement(text) for text in requires(one.name) or ()]
        except PackageNotFoundError:
            continue  # of an extra that is not installed
    return found


def test_every_package_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = [normal(pin.partition("==")[0]) for pin in pins]

    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", pin) for pin in pins)
    assert len(names) == len(set(names))
    assert pins[0].startswith("torch==")
    if version("torch").partition("+")[0] != pins[0].removeprefix("torch=="):
        pytest.skip("other versions bring other packages")
    assert not brought() - set(names)
    assert len(brought()) > 50
