"""One set through every door: the same ids, splits and tokens, each file with its sha256."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import orjson
import polars as pl
import pytest
from click.testing import CliRunner
from datasets import Dataset, DatasetDict

import prefdata
from prefdata.cli import main
from prefdata.errors import PrefdataError
from prefdata.hub.urls import fetch_url, shown_url
from prefdata.store.reader import Build
from tests.hub import FakeHub, use_loopback
from tests.prefdata.conftest import chat_rows
from tests.prefdata.split_files import ask

TRAIN, TEST = chat_rows(40), chat_rows(50)[44:]


def lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory of two splits, with a file that is not data."""
    here = tmp_path / "set"
    for name, rows in (("train", TRAIN), ("test", TEST)):
        (here / name).mkdir(parents=True)
        (here / name / "part.jsonl").write_bytes(lines(rows))
    (here / "README.md").write_text("about")
    return here


class Site(ThreadingHTTPServer):
    """Server of a few files, with ETags and ranges; `cut` ends each body early."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.cut, self.etag = files, 0, True
        self.seen: list[tuple[str, str]] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "Site":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.seen.append((self.path, asked))
        data = self.server.files.get(self.path.partition("?")[0])
        if data is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        if self.headers.get("If-None-Match") == tag and self.server.etag:
            self.send_response(304)
            self.end_headers()
            return
        start = int(asked[6:-1]) if asked and self.headers.get("If-Range") == tag else 0
        self.send_response(206 if start else 200)
        if self.server.etag:
            self.send_header("ETag", tag)
        else:
            self.send_header("Last-Modified", formatdate(0, usegmt=True))
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut] if self.server.cut else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    files = {f"/{name}/part.jsonl": (folder / name / "part.jsonl").read_bytes()
             for name in ("train", "test")}  # fmt: skip
    with Site(files) as server:
        yield server


@pytest.fixture(autouse=True)
def own_cache_of_urls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def in_memory_files(folder: Path, _site: Site) -> list[str]:
    system = fsspec.filesystem("memory")
    for name in ("train", "test"):
        system.pipe(f"/bucket/{name}/part.jsonl", (folder / name / "part.jsonl").read_bytes())
    system.pipe("/bucket/README.md", b"about")
    return ["memory://bucket"]


DOORS: dict[str, Callable[[Path, Site], Any]] = {
    "files": lambda folder, _: [str(folder / "train/part.jsonl"), folder / "test/part.jsonl"],
    "a glob": lambda folder, _: str(folder / "*/*.jsonl"),
    "a directory": lambda folder, _: folder,
    "sources": lambda folder, _: [
        {"path": str(folder / "train"), "split": "train"},
        {"path": str(folder / "test"), "split": "test"},
    ],
    "URLs": lambda _, site: [f"{site.address}/train/part.jsonl", f"{site.address}/test/part.jsonl"],
    "a directory of fsspec": in_memory_files,
    "a glob of fsspec": lambda folder, site: [in_memory_files(folder, site)[0] + "/*/*.jsonl"],
    "frames of polars": lambda *_: {"train": pl.DataFrame(TRAIN), "test": pl.DataFrame(TEST)},
    "iterables": lambda *_: {"train": iter(TRAIN), "test": (row for row in TEST)},
    "a DatasetDict": lambda *_: DatasetDict(
        train=Dataset.from_list(TRAIN), test=Dataset.from_list(TEST)
    ),
}


@pytest.fixture
def plain(folder: Path, tiny: Path, tmp_path: Path) -> Build:
    inputs = {name: [str(folder / name / "part.jsonl")] for name in ("train", "test")}
    return prefdata.build(inputs, tokenizer=str(tiny), out=tmp_path / "plain")


@pytest.mark.parametrize("door", DOORS)
def test_a_set_is_the_same_through_every_door(
    door: str, folder: Path, site: Site, plain: Build, tiny: Path, tmp_path: Path
) -> None:
    built = prefdata.build(DOORS[door](folder, site), tokenizer=str(tiny), out=tmp_path / "out")

    assert {split: seal.rows for split, seal in built.splits.items()} == {
        split: seal.rows for split, seal in plain.splits.items()
    }
    for split in plain.splits:
        assert built.tokens(split).equals(plain.tokens(split))
    assert built.content_hash == plain.content_hash
    digests = {hashlib.sha256(lines(rows)).hexdigest() for rows in (TRAIN, TEST)}
    sealed = {one.sha256 for one in built.manifest.inputs}
    assert sealed == digests or door in ("frames of polars", "a DatasetDict", "iterables")
    assert str(tmp_path) not in built.manifest.to_bytes().decode()


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_standard_input_is_read_as_a_file_of_it(form: str, tiny: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No idea, none at all"}
        for n in range(30)
    ]
    frame = pl.DataFrame(rows)
    path = tmp_path / f"rows.{form}"
    {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}[form](
        path
    )
    plain = prefdata.build(path, tokenizer=str(tiny), out=tmp_path / "plain")
    words = ["build", "-", "--tokenizer", str(tiny), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, words, input=path.read_bytes())

    assert done.exit_code == 0, done.output
    built = prefdata.open(tmp_path / "out")
    assert built.content_hash == plain.content_hash
    (seal,) = built.manifest.inputs
    assert seal.name == ("stdin.csv" if form == "csv" else "stdin")
    assert seal.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_real_pipe_is_read(folder: Path) -> None:
    command = [sys.executable, "-m", "prefdata", "validate", "-", "--fail-on", "error"]
    data = (folder / "train/part.jsonl").read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
    assert b"stdin" in done.stdout


def test_a_directory_says_what_it_does_not_read(folder: Path, tiny: Path, tmp_path: Path) -> None:
    """Hidden files and builds inside of it are not data: a second build reads the same files."""
    (folder / ".hidden.jsonl").write_bytes(b"not read")
    first = prefdata.build(folder, tokenizer=str(tiny), out=folder / "out")
    second = prefdata.build(folder, tokenizer=str(tiny), out=tmp_path / "again")

    assert first.manifest.fingerprint == second.manifest.fingerprint
    notes = prefdata.validate(folder).notes
    assert "set: a directory; data files read: 2; not read: README.md" in notes
    (tmp_path / "none").mkdir()
    with pytest.raises(PrefdataError, match=r"is a directory without data files.*jsonl.*E116"):
        prefdata.validate(tmp_path / "none")


def test_a_build_is_read_by_its_directory(plain: Build, tiny: Path, tmp_path: Path) -> None:
    again = prefdata.build(plain.path, tokenizer=str(tiny), out=tmp_path / "again")

    assert again.content_hash == plain.content_hash


def test_a_fetch_that_broke_off_continues(site: Site) -> None:
    url, data = f"{site.address}/train/part.jsonl", site.files["/train/part.jsonl"]
    site.cut = 1000
    with pytest.raises(PrefdataError, match=r"E216"):
        fetch_url(url)
    held = 1000 * len(site.seen)
    site.cut = 0
    (path,) = fetch_url(url)

    assert Path(path).read_bytes() == data
    assert site.seen[-1][1] == f"bytes={held}-"
    num = len(site.seen)
    assert fetch_url(url) == [path]
    assert site.seen[num:] == [("/train/part.jsonl", "")], "one question, answered by 304"


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site) -> None:
    """Bytes of two versions are never joined, and a date does not prove that bytes are the same."""
    url, name = f"{site.address}/train/part.jsonl", "/train/part.jsonl"
    site.cut = 1000
    with pytest.raises(PrefdataError, match="E216"):
        fetch_url(url)
    site.files[name], site.cut = b"other\n" * 999, 0
    assert Path(fetch_url(url)[0]).read_bytes() == b"other\n" * 999
    site.etag = False
    for data in (b"x" * 5000, b"y" * 5000):
        site.files[name] = data
        assert Path(fetch_url(url)[0]).read_bytes() == data


def test_a_copy_by_fsspec_continues_and_is_kept() -> None:
    """The part that is there is not asked for again, as other bytes in its place show."""
    fsspec.filesystem("memory").pipe("/bucket/a.jsonl", b"row\n" * 70_000)
    (path,) = map(Path, fetch_url("memory://bucket/a.jsonl"))
    assert path.read_bytes() == b"row\n" * 70_000
    kept = path.stat().st_mtime_ns
    assert fetch_url("memory://bucket/a.jsonl") == [str(path)]
    assert path.stat().st_mtime_ns == kept

    path.rename(path.with_name(".a.jsonl.part")).write_bytes(b"old\n" * 40_000)
    fetch_url("memory://bucket/a.jsonl")

    assert path.read_bytes() == b"old\n" * 40_000 + b"row\n" * 30_000
    fsspec.filesystem("memory").pipe("/bucket/a.jsonl", b"new\n" * 9)
    fetch_url("memory://bucket/a.jsonl")
    assert path.read_bytes() == b"new\n" * 9


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{site}/none.jsonl", r"was refused \(HTTP 404.*E215"),
        ("memory://bucket/none.jsonl", "does not exist.*E215"),
        ("memory://bucket/none-*.jsonl", "does not exist.*E215"),
        ("nosuch://bucket/a.jsonl", "Protocol not known.*E215"),
        ("http://127.0.0.1:9/a.jsonl", "was not fetched.*E216"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_line(url: str, said: str, site: Site) -> None:
    with pytest.raises(PrefdataError, match=said):
        prefdata.validate(url.format(site=site.address))


def test_secrets_of_a_url_are_nowhere(site: Site, tiny: Path, tmp_path: Path) -> None:
    url = f"{site.address}/train/part.jsonl?sig=topsecret".replace("://", "://me:topsecret@")
    built = prefdata.build(url, tokenizer=str(tiny), out=tmp_path / "out")

    assert built.manifest.inputs[0].name == shown_url(url) == f"{site.address}/train/part.jsonl"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"topsecret" not in path.read_bytes(), path
    with pytest.raises(PrefdataError, match="E215") as caught:
        prefdata.validate(url.replace("part", "none"))
    assert "topsecret" not in str(caught.value)


def test_sources_are_read_each_by_its_own_layout(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(TRAIN))
    arena = [
        {"instruction": f"Say {n}", "output_1": f"{n}", "output_2": "no", "preference": 1}
        for n in range(9)
    ]
    (tmp_path / "b.jsonl").write_bytes(lines(arena))  # type: ignore[arg-type]
    sources = [
        prefdata.Source(path=str(tmp_path / "a.jsonl"), name="mine", license="cc-by-4.0"),
        prefdata.Source(path=str(tmp_path / "b.jsonl"), layout="alpaca-farm", name="judged"),
    ]
    built = prefdata.build(sources, tokenizer=str(tiny), out=tmp_path / "out")

    report = orjson.loads((tmp_path / "out/report.json").read_bytes())
    found = {one["name"]: (one["pairs"], one["licence"]) for one in report["sources"]}
    assert found == {"mine": (40, "cc-by-4.0"), "judged": (9, None)}
    assert [one.layout for one in built.manifest.inputs] == ["trl-conv-explicit", "alpaca-farm"]
    other = [sources[0], sources[1].model_copy(update={"layout": None})]
    with pytest.raises(PrefdataError, match="E142"):
        prefdata.build(other, tokenizer=str(tiny), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([{"path": "a.jsonl", "wieght": 2}], "wieght: no such key; did you mean 'weight'?.*C101"),
        ([{"path": "a.jsonl", "weight": 0}], "greater than 0.*C102"),
        ([{"path": "a.jsonl", "weight": float("nan")}], "C102"),
        ([{"path": "a.jsonl", "split": "test", "weight": 2}], "has no effect.*given as test.*C102"),
        ([{"path": "a.jsonl", "split": "te st"}], "is not a split name.*C102"),
        ([{"layout": "hh"}], "inputs.0.path is missing.*C103"),
        ([7], "each file must be a string.*C102"),
        ([], "give at least one file.*C102"),
    ],
)
def test_a_source_that_is_wrong_is_one_line(inputs: Any, said: str) -> None:
    from prefdata.config import make_config

    with pytest.raises(PrefdataError, match=said):
        make_config({"inputs": inputs, "tokenizer": "t", "out": "o"}, place="test")


def test_a_file_of_two_sources_is_refused_if_they_differ(folder: Path) -> None:
    path = str(folder / "train/part.jsonl")
    with pytest.raises(PrefdataError, match=r"two sources.*E185"):
        prefdata.validate([{"path": path, "weight": 2.0}, {"path": str(folder / "train")}])


NEAR = "Describe the harbor of a small town in the north, with its boats, its gulls and its light"


def planted() -> dict[str, list[dict[str, object]]]:
    """Return two splits that share a pair, a prompt, and a prompt that is nearly the same."""
    train = [ask("the very same pair"), ask("the same prompt", "yes", "no"), ask(NEAR)]
    test = [ask("the very same pair"), ask("the same prompt", "sure", "never"),
            ask(f"{NEAR} too")]  # fmt: skip
    others = [ask(f"question {n} of {n * n * 31}", f"yes {n}", f"no {n}") for n in range(40)]
    return {"train": [*train, *others[:30]], "test": [*test, *others[30:]]}


def given_by_names(folder: Path) -> Any:
    return [str(folder / "train.jsonl"), str(folder / "test.jsonl")]


def given_by_config(folder: Path) -> Any:
    return {name: [str(folder / f"{name}.jsonl")] for name in ("train", "test")}


def given_by_sources(folder: Path) -> Any:
    return [{"path": str(folder / f"{name}.jsonl"), "split": name} for name in ("train", "test")]


def given_by_the_hub(_folder: Path) -> Any:
    return "org/leaky"


@pytest.fixture
def leaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory with the planted files, which are a set on the Hub too."""
    files = {f"{name}.jsonl": lines(rows) for name, rows in planted().items()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with FakeHub() as hub:
        hub.create("datasets/org/leaky", files)
        use_loopback(hub, monkeypatch, tmp_path)
        yield tmp_path


@pytest.mark.parametrize(
    "given", [given_by_names, given_by_config, given_by_sources, given_by_the_hub]
)
def test_planted_leaks_are_counted_and_handled_as_the_policy_says(
    given: Callable[[Path], Any], leaky: Path, tiny: Path
) -> None:
    def build(leaks: str) -> Build:
        return prefdata.build(
            given(leaky), tokenizer=str(tiny), out=leaky / "out" / leaks, leaks=leaks
        )

    def counts(built: Build) -> dict[str, tuple[str, int]]:
        report = orjson.loads((built.path / "report.json").read_bytes())
        found = {one["code"]: (one["severity"], one["count"]) for one in report["findings"]}
        return {code: found[code] for code in ("PD501", "PD502", "PD505") if code in found}

    dropped, kept = build("drop_from_train"), build("report")

    assert {name: one.rows for name, one in dropped.splits.items()} == {"train": 30, "test": 13}
    assert {name: one.rows for name, one in kept.splits.items()} == {"train": 33, "test": 13}
    assert counts(dropped) == {"PD501": ("E", 1), "PD502": ("W", 1), "PD505": ("E", 1)}
    assert counts(kept) == dict.fromkeys(("PD501", "PD502", "PD505"), ("W", 1))
    codes = [row["code"] for row in dropped.rejected().to_pylist()]
    assert sorted(codes) == ["PD501", "PD502", "PD505"]
    with pytest.raises(PrefdataError, match=r"1 PD501, 1 PD502, 1 PD505.*E187"):
        build("refuse")
