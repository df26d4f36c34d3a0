"""Wheel and sdist: the same bytes from any clone, all data files, commands that need no repo."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import orjson
import pytest

from tests.hub import FakeHub, use_loopback
from tests.prefdata.conftest import chat_rows, save_tokenizer

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHON = os.environ.get("INSTALLED")
"""A Python into which pip has installed the wheel; if there is none, it is only unpacked."""
NAMES = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]


def clone(target: Path, *, time: int, mode: int) -> Path:
    """Copy the sources as a checkout at another time and under another umask would have them."""
    for name in (*NAMES, "pyproject.toml", ".gitignore"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(exist_ok=True)
            shutil.copy(source, target / name)
    for path in target.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            os.utime(path, (time, time))
    return target


def pack(source: Path, out: Path, *targets: str, zone: str = "UTC") -> dict[str, Path]:
    """Build archives from a directory and return them by their kinds."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    for target in targets:
        command += ["-t", target]
    assert "SOURCE_DATE_EPOCH" not in os.environ
    environment = os.environ | {"TZ": zone}
    subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    kinds = {".whl": "wheel", ".gz": "sdist"}
    return {kinds[path.suffix]: path for path in out.iterdir() if path.suffix in kinds}


def digests(archives: dict[str, Path]) -> dict[str, str]:
    return {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in archives.items()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    source = clone(folder / "a clone", time=1_700_000_000, mode=0o644)
    return pack(source, folder / "out", "sdist", "wheel")


@pytest.fixture(scope="module")
def installed(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel as pip does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        wheel.extractall(folder)
    return folder


def test_two_builds_have_the_same_bytes(archives: dict[str, Path], tmp_path: Path) -> None:
    source = clone(tmp_path / "another", time=1_500_000_001, mode=0o600)
    others = pack(source, tmp_path / "out", "sdist", "wheel", zone="Asia/Kolkata")

    assert digests(others) == digests(archives)
    assert set(archives) == {"sdist", "wheel"}


def test_the_sdist_builds_the_same_wheel(archives: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(archives["sdist"]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    again = pack(source, tmp_path / "out", "wheel")

    assert digests(again)["wheel"] == digests(archives)["wheel"]


def test_every_file_is_in_the_wheel(installed: Path) -> None:
    version = PROJECT["project"]["version"]
    parts = {path.relative_to(installed).parts[0] for path in files_of(installed)}
    data, facts = f"prefdata_dpo-{version}.data", f"prefdata_dpo-{version}.dist-info"

    assert parts == {"prefdata", "dpo", data, facts}
    for package in ("prefdata", "dpo"):
        wanted = {path.relative_to(ROOT) for path in files_of(ROOT / package)}
        assert {path.relative_to(installed) for path in files_of(installed / package)} == wanted
        assert Path(package, "py.typed") in wanted
    schemas = installed / data / "data/share/prefdata-dpo/schemas"
    assert {path.name for path in schemas.iterdir()} == {
        path.name for path in (ROOT / "schemas").iterdir()
    }
    assert (installed / facts / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]


def test_links_of_the_readme_lead_to_files_of_the_release(installed: Path) -> None:
    (path,) = installed.glob("*.dist-info/METADATA")
    facts = message_from_bytes(path.read_bytes())
    readme = facts.get_payload(decode=True)
    assert isinstance(readme, bytes)
    urls = dict(url.split(", ") for url in facts.get_all("Project-URL") or ())
    release = f"{urls['Repository']}/blob/v{PROJECT['project']['version']}/"
    links = re.findall(r"\]\(([^)]+)\)", readme.decode())
    own = [link.removeprefix(release).partition("#")[0] for link in links if release in link]

    assert all(link.startswith("https://") for link in links)
    assert len(own) > 20
    assert all((ROOT / name).exists() for name in own)
    assert all(url.startswith(urls["Repository"]) for url in urls.values())


def test_the_wheel_works_in_an_empty_directory(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "empty"
    here.mkdir()
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in chat_rows(20)))
    save_tokenizer(tmp_path / "tiny")
    with FakeHub() as hub:
        environment = use_loopback(hub, monkeypatch, tmp_path)
        environment["PYTHONPATH"] = "" if PYTHON else str(installed)

        def run(*words: str) -> str:
            command = [PYTHON or sys.executable, "-P", "-m", *words]
            done = subprocess.run(
                command, cwd=here, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert PROJECT["project"]["version"] in run("prefdata", "--version")
        assert "20" in run("prefdata", "validate", "../rows.jsonl", "--report", "page.html")
        run("prefdata", "build", "../rows.jsonl", "--tokenizer", "../tiny", "-o", "out")
        assert "<|im_start|>assistant" in run("prefdata", "show", "out", "--row", "3")
        run("prefdata", "push", "out", "org/set", "--license", "mit")
        _, files = hub.head("datasets/org/set")

    assert "manifest.json" in files
    assert {path.name for path in here.iterdir()} == {"out", "page.html"}
