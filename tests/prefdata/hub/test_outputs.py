"""A build at a URL has the files of one on disk, and its manifest last."""

from pathlib import Path
from typing import Any

import fsspec
import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from prefdata.hub import outputs
from prefdata.store.manifest import NAME
from prefdata.store.reader import Build

URL = "memory://bucket/out"


def build(
    rows: Path, tokenizer: Path, out: str, seed: int = 0, *, shard_rows: int = 60,
    replace: bool = False,
) -> Build:  # fmt: skip
    config = BuildConfig(
        inputs=[str(rows)], tokenizer=str(tokenizer), out=Path(out), seed=seed,
        shard_rows=shard_rows,
    )  # fmt: skip
    return prefdata.build(config, replace=replace)


def files_at(url: str) -> dict[str, bytes]:
    system, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}


@pytest.fixture(autouse=True)
def _empty() -> None:
    fsspec.filesystem("memory").store.clear()


def test_a_url_gets_the_bytes_that_a_directory_gets(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    build(rows_file, tiny, str(tmp_path / "out"))
    build(rows_file, tiny, URL)

    on_disk = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert files_at(URL) == on_disk
    assert not Path("memory:").exists()


def test_another_build_is_replaced_only_if_asked(rows_file: Path, tiny: Path) -> None:
    first = build(rows_file, tiny, URL)
    again = build(rows_file, tiny, URL)
    with pytest.raises(PrefdataError, match="E142"):
        build(rows_file, tiny, URL, seed=3)
    fsspec.filesystem("memory").pipe_file("/bucket/out/foreign.txt", b"mine")

    other = build(rows_file, tiny, URL, seed=3, replace=True)

    assert first.manifest.hash == again.manifest.hash != other.manifest.hash
    found = files_at(URL)
    assert found.keys() == {
        NAME, "README.md", "report.html", "foreign.txt",
        *(one.path for one in other.manifest.shards),
        *(one.path for one in other.manifest.files),
    }  # fmt: skip


def test_what_a_copy_that_broke_off_has_left_is_removed_by_another_build(
    rows_file: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, names = outputs._put, list[str]()

    def break_off(system: Any, source: Path, target: str) -> None:
        names.append(target)
        if len(names) > 4:
            raise OSError("the connection was closed")
        put(system, source, target)

    monkeypatch.setattr(outputs, "_put", break_off)
    with pytest.raises(PrefdataError, match="E217"):
        build(rows_file, tiny, URL)
    monkeypatch.undo()
    assert NAME not in files_at(URL)
    assert len(files_at(URL)) == 5

    other = build(rows_file, tiny, URL, shard_rows=1000)

    listed = {one.path for one in (*other.manifest.shards, *other.manifest.files)}
    assert files_at(URL).keys() == {NAME, "README.md", "report.html", *listed}


@pytest.mark.parametrize("left", [b"{", b"7", b'["../mine.txt", "/mine.txt", "", 3, "gone"]'])
def test_a_list_of_a_copy_removes_nothing_outside(rows_file: Path, tiny: Path, left: bytes) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/mine.txt", b"mine")
    memory.pipe_file("/bucket/out/.prefdata-copying.json", left)

    build(rows_file, tiny, URL)

    assert memory.cat_file("/bucket/mine.txt") == b"mine"
    assert ".prefdata-copying.json" not in files_at(URL)


def test_a_file_url_is_a_path(rows_file: Path, tiny: Path, tmp_path: Path) -> None:
    made = build(rows_file, tiny, f"file://{(tmp_path / 'out').as_posix()}")

    assert made.path == tmp_path / "out"
    assert (tmp_path / "out" / NAME).is_file()


def test_a_url_without_a_client_is_one_line(rows_file: Path, tiny: Path) -> None:
    with pytest.raises(PrefdataError, match=r"nowhere://bucket/out: cannot be written .*E217"):
        build(rows_file, tiny, "nowhere://bucket/out")
