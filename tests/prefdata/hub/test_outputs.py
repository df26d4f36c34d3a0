"""A build at a URL has the files of one on disk, and its manifest last."""

from pathlib import Path

import fsspec
import pytest

import prefdata
from prefdata.config import BuildConfig
from prefdata.errors import PrefdataError
from prefdata.store.manifest import NAME
from prefdata.store.reader import Build

URL = "memory://bucket/out"


def build(rows: Path, tokenizer: Path, out: str, seed: int = 0, *, replace: bool = False) -> Build:
    config = BuildConfig(
        inputs=[str(rows)], tokenizer=str(tokenizer), out=Path(out), seed=seed, shard_rows=60
    )
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


def test_a_url_without_a_client_is_one_line(rows_file: Path, tiny: Path) -> None:
    with pytest.raises(PrefdataError, match=r"nowhere://bucket/out: cannot be written .*E217"):
        build(rows_file, tiny, "nowhere://bucket/out")
