"""Layouts of installed packages are detected, listed with their package, and part of a build."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from prefdata.building import build
from prefdata.cli import main
from prefdata.errors import UsageError
from prefdata.read import detect_layout, installed_layouts, load_layout

LAYOUT = """
name: acme
about: Acme's answers
columns: {ask: text, good: text, bad: text}
prompt: ask
chosen: good
rejected: bad
fixture:
  rows: [{ask: Hi?, good: Hello., bad: No.}]
  pairs:
  - prompt: [{role: user, content: Hi?}]
    chosen: [{role: assistant, content: Hello.}]
    rejected: [{role: assistant, content: No.}]
"""
ROW = {"ask": "Hi?", "good": "Hello.", "bad": "No."}
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a package: its modules, its layouts, its metadata."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def write(*, value: str = "acme_data.forms", code: str = "", **files: str) -> Path:
        forms = site / "acme_data" / "forms"
        forms.mkdir(parents=True, exist_ok=True)
        (site / "acme_data" / "__init__.py").write_text(code)
        (forms / "__init__.py").write_text("")
        for name, text in files.items():
            (forms / f"{name}.yaml").write_text(text)
        about = site / "acme_data-1.2.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-data\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[prefdata.layouts]\nacme = {value}\n")
        installed_layouts.cache_clear()
        return forms

    yield write
    installed_layouts.cache_clear()
    for name in [name for name in sys.modules if name.startswith("acme_data")]:
        del sys.modules[name]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("acme_data.forms", ""),
        ("acme_data:forms", "FILE = __file__\ndef forms(): return FILE[:-11] + 'forms/acme.yaml'"),
        ("acme_data:forms", "FILE = __file__\ndef forms(): return [FILE[:-11] + 'forms']"),
    ],
)
def test_an_installed_layout_is_found_and_detected(install: Install, value: str, code: str) -> None:
    install(value=value, code=code, acme=LAYOUT)

    assert load_layout("acme").package == "acme-data 1.2"
    assert detect_layout([ROW]).name == "acme"


def test_it_is_listed_with_its_package(install: Install) -> None:
    install(acme=LAYOUT)

    lines = run("layouts").output.splitlines()

    assert lines[-1] == f"{'acme':24} Acme's answers (from acme-data 1.2)"
    assert "\n  from        acme-data 1.2\n" in run("layouts", "acme").output
    assert "did you mean 'acme'?" in run("layouts", "acmee").stderr


def test_a_build_names_it_and_depends_on_its_content(
    install: Install, tmp_path: Path, tiny: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(orjson.dumps({**ROW, "ask": f"{n}?"}) + b"\n" for n in range(9)))
    install(acme=LAYOUT)

    def manifest(out: str, **settings: str) -> dict:
        build(str(source), tokenizer=str(tiny), out=tmp_path / out, **settings)
        return orjson.loads((tmp_path / out / "manifest.json").read_bytes())

    first, again, named = manifest("a"), manifest("b"), manifest("c", layout="acme")
    install(acme=LAYOUT.replace("prompt: ask", "prompt: [ask]"))
    changed = manifest("d")

    (read,) = first["inputs"]
    assert (read["layout"], read["reading"]["chosen_by"]) == ("acme", "columns")
    assert read["reading"]["said"] == ["the layout is one of the package acme-data 1.2"]
    assert first["fingerprint"] == again["fingerprint"] != changed["fingerprint"]
    assert named["config"]["layout"] == "acme"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"value": "acme_gone"}, r"package acme-data 1.2: .*'acme': cannot be loaded.*C154"),
        ({"value": "acme_data:f", "code": "def f(): return 1 / 0"}, "ZeroDivisionError.*C154"),
        ({"value": "acme_data:f", "code": "def f(): return 3"}, "TypeError.*C154"),
        ({"value": "acme_data:f", "code": "raise SystemExit(5)"}, "SystemExit: 5.*C154"),
        ({}, "names no YAML file.*C154"),
        ({"hh": LAYOUT.replace("name: acme", "name: hh")}, "'hh' has the name of one of prefdata"),
        ({"a": LAYOUT, "b": LAYOUT}, "'acme' has the name of one of acme-data 1.2.*C154"),
        ({"acme": "name: [1"}, r"acme-data 1.2, acme.yaml: .*C151"),
        ({"acme": LAYOUT + "colour: red\n"}, r"acme-data 1.2, acme.yaml: colour.*C152"),
    ],
)
def test_a_broken_package_is_named(
    install: Install, tmp_path: Path, given: dict[str, str], error: str
) -> None:
    install(**given)
    mine = tmp_path / "mine.yaml"
    mine.write_text(LAYOUT.replace("name: acme", "name: mine"))

    with pytest.raises(UsageError, match=error):
        detect_layout([ROW])
    assert load_layout("hh").name == "hh"
    assert load_layout(str(mine)).name == "mine"
