"""Both packages as libraries: every name in `__all__` exists, and importing is cheap."""

import subprocess
import sys

import pytest

import dpo
import prefdata


@pytest.mark.parametrize("package", [dpo, prefdata])
def test_every_public_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name).__doc__ or name == "losses"


@pytest.mark.parametrize("package", ["dpo", "prefdata"])
def test_importing_brings_no_torch_and_no_transformers(package: str) -> None:
    code = f"import sys, {package}; assert not {{'torch', 'transformers'}} & set(sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
