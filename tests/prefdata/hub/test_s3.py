"""Inputs and output in an S3 store: a build has the bytes of one on disk. The server is moto's."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import prefdata
from prefdata.errors import PrefdataError
from tests.census import snapshot
from tests.prefdata.conftest import chat_rows, write_rows

moto = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")
pytestmark = pytest.mark.slow
NAME_INPUTS = {"README.md", "manifest.json", "rejected", "report.html", "report.json", "text"}
"""Files that contain the names of the inputs as they were typed; `tokens` does not."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    """Start a server on a free port, which s3fs finds by its environment."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)
    server.stop()


def test_a_set_from_s3_to_s3_is_that_of_the_disk(
    store: s3fs.S3FileSystem, tiny: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, chat_rows(120))
    rows.write_bytes(rows.read_bytes() + json.dumps({"what": 1}).encode() + b"\n")
    store.put(str(rows), "bucket/raw/rows.jsonl")
    here = prefdata.build([str(rows)], tokenizer=str(tiny), out=tmp_path / "out")

    there = prefdata.build(
        ["s3://bucket/raw/*.jsonl"], tokenizer=str(tiny), out="s3://bucket/sets/out"
    )
    store.invalidate_cache()
    store.get("bucket/sets/out", str(tmp_path / "back"), recursive=True)

    assert there.manifest.content_hash == here.manifest.content_hash
    before, after = snapshot(tmp_path / "out"), snapshot(tmp_path / "back")
    assert before.keys() == after.keys()
    differing = {name.partition("/")[0] for name in before if before[name] != after[name]}
    assert differing == NAME_INPUTS


def test_a_file_from_disk_to_s3_is_the_same_bytes(
    store: s3fs.S3FileSystem, tiny: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", chat_rows(120))
    prefdata.build([str(rows)], tokenizer=str(tiny), out=tmp_path / "out")

    prefdata.build([str(rows)], tokenizer=str(tiny), out="s3://bucket/sets/out")

    store.invalidate_cache()
    store.get("bucket/sets/out", str(tmp_path / "back"), recursive=True)
    assert snapshot(tmp_path / "back") == snapshot(tmp_path / "out")


def test_marks_of_urls_are_letters_of_names(
    store: s3fs.S3FileSystem, tiny: Path, tmp_path: Path
) -> None:
    """`#` and `?` begin no query, and a name with a mark of a glob is that file."""
    rows = list(chat_rows(110))
    for split, some in (("train", rows[:80]), ("test", rows[80:])):
        write_rows(tmp_path / f"rows#{split}.jsonl", some)
        store.put(str(tmp_path / f"rows#{split}.jsonl"), f"bucket/raw/rows#{split}.jsonl")
    store.pipe_file("bucket/raw/q?x.jsonl", (tmp_path / "rows#test.jsonl").read_bytes())
    store.pipe_file("bucket/raw/qAx.jsonl", (tmp_path / "rows#train.jsonl").read_bytes())
    splits = [f"s3://bucket/raw/rows#{split}.jsonl" for split in ("train", "test")]

    there = prefdata.build(splits, tokenizer=str(tiny), out=tmp_path / "there")
    here = prefdata.build(
        [str(tmp_path / f"rows#{split}.jsonl") for split in ("train", "test")],
        tokenizer=str(tiny), out=tmp_path / "here",
    )  # fmt: skip
    alone = prefdata.build(["s3://bucket/raw/q?x.jsonl"], tokenizer=str(tiny), out=tmp_path / "q")

    assert there.manifest.splits.keys() == {"train", "test"}
    assert there.manifest.content_hash == here.manifest.content_hash
    assert all("#" in one.name for one in there.manifest.inputs)
    assert [one.lines.lines for one in alone.manifest.inputs] == [30]


def test_a_bucket_that_is_not_there_is_not_made(
    store: s3fs.S3FileSystem, rows_file: Path, tiny: Path
) -> None:
    with pytest.raises(PrefdataError, match="E217"):
        prefdata.build([str(rows_file)], tokenizer=str(tiny), out="s3://bukcet/sets/out")

    store.invalidate_cache()
    assert not store.exists("bukcet")
