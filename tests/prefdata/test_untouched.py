"""Foreign files: no command of prefdata overwrites its inputs or files that it did not write."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main
from prefdata.config import BuildConfig
from prefdata.errors import UsageError
from prefdata.progress import Silent
from prefdata.store.staging import FOLDER
from tests.census import require_untouched, snapshot
from tests.prefdata.conftest import CHATML, chat_rows, save_tokenizer, write_rows

PAGE = "<!doctype html><title>mine</title>"
NO_PAIR = "0" * 32
MINE = hashlib.sha256(b"mine\n").hexdigest()
BUILD = ["build", "rows.jsonl", "--tokenizer", "tok", "-o", "out"]
AGAIN = [*BUILD, "--replace"]
OTHER = ["build", "build.yaml", "--replace"]
REPORT = ["validate", "rows.jsonl", "--report"]
NOT_UTF8 = os.fsdecode(b"\xff")

Step = Callable[[], object]
"""Step that prepares the working directory."""


class Killed(Silent):
    """Progress that stops a build at its tokens, as Ctrl-C does."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        if title == "tokens":
            raise KeyboardInterrupt
        return super().bar(title, total)


def config_of(**changes: object) -> BuildConfig:
    values = {"inputs": ["rows.jsonl"], "tokenizer": "tok", "out": Path("out")} | changes
    return BuildConfig(**values)  # type: ignore[arg-type]


def made(**changes: object) -> Step:
    """Return a step that makes a finished build in `out`."""
    return lambda: prefdata.build(config_of(**changes))


def killed() -> None:
    """Start a build in `out`, and stop it before its tokens."""
    with pytest.raises(KeyboardInterrupt):
        prefdata.build(config_of(), progress=Killed())
    assert Path("out", FOLDER, "parts").is_dir()


def put(name: str, content: str = "mine\n") -> Step:
    def step() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)

    return step


def linked(name: str, target: str) -> Step:
    def step() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).symlink_to(Path(target).absolute())

    return step


def hard_linked(name: str, target: str) -> Step:
    def step() -> None:
        Path(name).unlink(missing_ok=True)
        Path(name).hardlink_to(target)

    return step


def moved(name: str, new: str) -> Step:
    def step() -> None:
        Path(new).parent.mkdir(parents=True, exist_ok=True)
        Path(name).rename(new)

    return step


def rows_at(name: str) -> Step:
    return moved("rows.jsonl", name)


def config(**changes: object) -> Step:
    values = {"inputs": ["rows.jsonl"], "tokenizer": "tok", "out": "out"} | changes
    return put("build.yaml", json.dumps(values))


def reported(name: str) -> Step:
    """Return a step that writes a report of an earlier validation."""
    return lambda: CliRunner().invoke(main, [*REPORT, name])


def shown(name: str) -> Step:
    return lambda: CliRunner().invoke(main, ["show", "out", "--html", name])


def swapped(name: str, old: str, new: str) -> Step:
    return lambda: Path(name).write_text(Path(name).read_text().replace(old, new))


class Refused(NamedTuple):
    """Case: existing files, a command, and its error code."""

    name: str
    steps: list[Step]
    words: list[str]
    code: str


def to(out: str, *words: str, rows: str = "rows.jsonl") -> list[str]:
    return ["build", rows, "--tokenizer", "tok", "-o", out, *words]


REFUSED = [
    Refused("out is the directory of the input", [], to("."), "E143"),
    Refused("the same with --replace", [], to(".", "--replace"), "E143"),
    Refused("input where text goes", [rows_at("text/r")], to(".", rows="text/r"), "E170"),
    Refused("input named as a file of builds", [rows_at("README.md")],
            to(".", "--replace", rows="README.md"), "E170"),
    Refused("input below .building", [rows_at(".building/r")],
            to(".", rows=".building/r"), "E170"),
    Refused("input through a link", [rows_at("out/text/r"), linked("in", "out/text/r")],
            to("out", "--replace", rows="in"), "E170"),
    Refused("input is a hard link of the report",
            [made(), hard_linked("out/report.json", "rows.jsonl")], AGAIN, "E170"),
    Refused("out spelled with dots", [rows_at("text/r")], to("tok/..", rows="text/r"), "E170"),
    Refused("out is a link", [linked("o", "."), rows_at("text/r")], to("o", rows="text/r"), "E170"),
    Refused("its own text is the input", [made()],
            to("out", "--replace", rows="out/text/*.parquet"), "E170"),
    Refused("out is the tokenizer", [], to("tok", "--replace"), "E170"),
    Refused("out is a link to the tokenizer", [linked("o", "tok")], to("o"), "E170"),
    Refused("the template is where text goes",
            [put("out/text/t.jinja", CHATML), config(chat_template="out/text/t.jinja")],
            OTHER, "E170"),
    Refused("an evaluation is a file of the build",
            [made(), config(evaluations=["out/report.json"])], OTHER, "E170"),
    Refused("ids to exclude are where rejected rows go", [put("out/rejected/ids", NO_PAIR)],
            [*AGAIN, "--exclude", "out/rejected/ids"], "E170"),
    Refused("a README", [put("out/README.md")], AGAIN, "E143"),
    Refused("a .building", [put("out/.building/notes")], BUILD, "E172"),
    Refused("a .building with a journal", [put("out/.building/journal.jsonl")], AGAIN, "E172"),
    Refused("a .building in a build", [made(), put("out/.building/notes")], AGAIN, "E172"),
    Refused(".building is a link", [put("else/notes"), linked("out/.building", "else")],
            BUILD, "E172"),
    Refused("a link within .building", [killed, linked("out/.building/text", ".")], BUILD, "E172"),
    Refused("a manifest of another tool", [put("out/manifest.json", '{"name": 1}')],
            AGAIN, "E133"),
    Refused("a changed manifest", [made(), swapped("out/manifest.json", "12", "13")],
            AGAIN, "E133"),
    Refused("tokens is a link",
            [made(), moved("out/tokens", "else"), linked("out/tokens", "else"), config(seed=1)],
            OTHER, "E171"),
    Refused("a new name is taken",
            [made(test_fraction=0.0), put("out/text/test-00000-of-00001.parquet"),
             config(test_fraction=0.5)], OTHER, "E171"),
    Refused("a README in a killed build", [killed, put("out/README.md")], BUILD, "E171"),
    Refused("a manifest in a killed build", [killed, put("out/manifest.json", "{}")],
            BUILD, "E133"),
    Refused("out is a file", [put("out")], BUILD, "E140"),
    Refused("out is below a file", [], to("rows.jsonl/out"), "E140"),
    Refused("out has 500 letters", [], to("o" * 500), "E174"),
    Refused("out is not UTF-8", [], to(NOT_UTF8), "E190"),
    Refused("another build", [made(), config(seed=1)], OTHER[:2], "E142"),
    Refused("report: the input", [rows_at("d.json")], ["validate", "d.json", "--report", "d.json"],
            "E171"),
    Refused("report: an input that is a report", [reported("r.json")],
            ["validate", "r.json", "--report", "r.json"], "E170"),
    Refused("report: the input by another path", [reported("r.json")],
            ["validate", "r.json", "--report", "tok/../r.json"], "E170"),
    Refused("report: a hard link of the input",
            [reported("r.json"), hard_linked("h.json", "r.json")],
            ["validate", "r.json", "--report", "h.json"], "E170"),
    Refused("report: a link to the input", [linked("l.json", "rows.jsonl")],
            [*REPORT, "l.json"], "E171"),
    Refused("report: the baseline", [reported("r.json")],
            [*REPORT, "r.json", "--baseline", "r.json"], "E170"),
    Refused("report: an evaluation", [reported("r.json")],
            [*REPORT, "r.json", "--evaluation", "r.json"], "E170"),
    Refused("report: somebody's JSON", [put("r.json", '{"format": "mine"}')],
            [*REPORT, "r.json"], "E171"),
    Refused("report: somebody's page", [put("r.html", PAGE)], [*REPORT, "r.html"], "E171"),
    Refused("report: somebody's SARIF", [put("r.sarif", '{"runs": []}')],
            [*REPORT, "r.sarif"], "E171"),
    Refused("report: a directory", [put("r.json/x")], [*REPORT, "r.json"], "E160"),
    Refused("report: below a file", [], [*REPORT, "rows.jsonl/r.json"], "E140"),
    Refused("report: 500 letters", [], [*REPORT, "r" * 500 + ".json"], "E174"),
    Refused("report: not UTF-8", [], [*REPORT, NOT_UTF8 + ".json"], "E190"),
    Refused("report: of a build", [made()], [*REPORT, "out/report.json"], "E173"),
    Refused("report: page of a build", [made()], [*REPORT, "out/report.html"], "E173"),
    Refused("report: a manifest", [made()], [*REPORT, "out/manifest.json"], "E171"),
    Refused("report: of this build", [], [*BUILD, "--report", "out/report.json"], "E173"),
    Refused("report: among its tokens", [], [*BUILD, "--report", "out/tokens/r.html"], "E173"),
    Refused("report: in a directory of the kernel", [], [*REPORT, "/sys/r.json"], "E192"),
    Refused("report: the tokenizer's config", [],
            [*BUILD, "--report", "tok/tokenizer_config.json"], "E171"),
    Refused("report: a hard link of the config", [config(), hard_linked("r.json", "build.yaml")],
            ["build", "build.yaml", "--report", "r.json"], "E171"),
    Refused("pages: somebody's", [made(), put("p.html", PAGE)],
            ["show", "out", "--html", "p.html"], "E171"),
    Refused("pages: somebody's index", [made(), put("site/index.html", PAGE)],
            ["show", "out", "--html", "site"], "E171"),
    Refused("pages: the build's report", [made()],
            ["show", "out", "--html", "out/report.html"], "E171"),
    Refused("pages: among its tokens", [made()], ["show", "out", "--html", "out/tokens"], "E173"),
    Refused("pages: a report", [made(), reported("r.html")],
            ["show", "out", "--html", "r.html"], "E171"),
]  # fmt: skip


class Allowed(NamedTuple):
    """Case: existing files, a command that works, and other files that it may write."""

    name: str
    steps: list[Step]
    words: list[str]
    own: tuple[str, ...] = ()


ALLOWED = [
    Allowed("a report again", [reported("r.json")], [*REPORT, "r.json"], ("r.json",)),
    Allowed("a page again", [reported("r.html")], [*REPORT, "r.html"], ("r.html",)),
    Allowed("a log again", [reported("r.sarif")], [*REPORT, "r.sarif"], ("r.sarif",)),
    Allowed("an empty file", [put("r.json", "")], [*REPORT, "r.json"], ("r.json",)),
    Allowed("a name like a temporary one", [put(".r.json.tmp")], [*REPORT, "r.json"], ("r.json",)),
    Allowed("a new directory", [], [*REPORT, "new/r.json"], ("new",)),
    Allowed("pages again", [made(), shown("site")], ["show", "out", "--html", "site"], ("site",)),
    Allowed("a log among the build's files", [], [*BUILD, "--report", "out/x.sarif"], ("out",)),
    Allowed("a new directory in the tokenizer's", [], to("tok/out"), ("tok/out",)),
    Allowed("notes in a killed build", [killed, put("out/notes")], BUILD),
    Allowed("notes in .building", [killed, put("out/.building/parts/notes")], BUILD),
    Allowed("the finished build", [made()], BUILD),
    Allowed("the finished build with a .building", [made(), put("out/.building/notes")], BUILD),
    Allowed("a directory of notebooks", [made(), put("out/text/.ipynb_checkpoints/a.parquet"),
            put("out/tokens/notes"), config(seed=1, test_fraction=0.5)], OTHER),
    Allowed("foreign shards", [made(), put("out/text/more-00000-of-00001.parquet"),
            put("out/tokens/a.arrow"), put("out/reference/x"), config(seed=1)], OTHER),
    Allowed("ids from the build's directory",
            [made(), put("out/scores/ids", NO_PAIR)], [*AGAIN, "--exclude", "out/scores/ids"]),
    Allowed("a directory named as an old temporary file",
            [made(), put("out/.manifest.json.tmp/x"), config(seed=1)], OTHER),
    Allowed("an edited card", [made(), put("out/README.md"), config(seed=1)], OTHER),
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tok")


@pytest.fixture(autouse=True)
def here(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with rows and a tokenizer."""
    write_rows(tmp_path / "rows.jsonl", chat_rows(12))
    (tmp_path / "tok").mkdir()
    for file in tokenizer.iterdir():
        (tmp_path / "tok" / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_foreign_files_are_an_error_and_are_kept(case: Refused, here: Path) -> None:
    for step in case.steps:
        step()
    before = snapshot(here)

    result = CliRunner().invoke(main, case.words)

    assert f"[{case.code}]" in result.output, (result.output, result.exception)
    assert result.exit_code == 2
    assert not any(word in result.output for word in ("delete", "remove")), "no advice to destroy"
    require_untouched(before, snapshot(here), [f"out/{FOLDER}"] if case.words is OTHER else [])


@pytest.mark.parametrize("case", ALLOWED, ids=lambda case: case.name)
def test_only_own_files_are_written(case: Allowed, here: Path) -> None:
    for step in case.steps:
        step()
    before = snapshot(here)
    owned = own_names(before)

    result = CliRunner().invoke(main, case.words)

    after = snapshot(here)
    assert result.exit_code in (0, 1), (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    foreign = {name for name in before if before[name] == MINE}
    ours = {f"out/{name}" for name in owned | own_names(after)} - foreign
    require_untouched(before, after, [*case.own, *ours])
    assert "out/text" not in ours


def own_names(census: dict[str, str]) -> set[str]:
    """Return the names in the manifest in `out`, and those of a killed build's files."""
    names = {name.removeprefix("out/") for name in census if name.startswith("out/")}
    staged = {name for name in names if name.startswith(FOLDER)}
    if "manifest.json" not in names:
        return staged
    seals = prefdata.open("out").manifest
    listed = {seal.path for seal in seals.shards} | {file.path for file in seals.files}
    return staged | listed | {"manifest.json", "README.md", "README.new.md", "report.html"}


def test_an_edited_card_is_kept_next_to_the_new_one() -> None:
    made()()
    put("out/README.md", "my words\n")()

    made(seed=1)  # refused without replace
    prefdata.build(config_of(seed=1), replace=True)

    assert Path("out/README.md").read_text() == "my words\n"
    assert Path("out/README.new.md").read_text().startswith("---")


def test_an_old_build_is_whole_until_the_new_one_is() -> None:
    """Interrupt a build's last step: the old build is left, and the next run makes the new one."""
    out = Path("out")
    made(test_fraction=0.0)()
    whole = snapshot(out)
    put("out/text/test-00000-of-00001.parquet")()
    wanted = config_of(test_fraction=0.5)
    with pytest.raises(UsageError, match="E171"):
        prefdata.build(wanted, replace=True)
    assert whole.items() <= snapshot(out).items()
    assert prefdata.open(out).manifest.config["test_fraction"] == 0.0

    Path("out/text/test-00000-of-00001.parquet").unlink()
    assert prefdata.build(wanted, replace=True).splits.keys() == {"train", "test"}
    assert not (out / FOLDER).exists()
