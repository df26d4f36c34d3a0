"""A build's directory is read through its manifest, and no damage passes unnoticed."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

import prefdata
from prefdata.errors import LockedError, PrefdataError
from prefdata.store.canonical import to_json
from prefdata.store.commit import commit_file, lock_folder, seal_file, write_bytes
from prefdata.store.manifest import (
    LineClasses,
    Manifest,
    ShardSeal,
    SplitStats,
    TokenizerIdentity,
)
from prefdata.store.shards import TOKENS, write_shard
from prefdata.store.verify import sha256_cached


def token_table(rows: int) -> pa.Table:
    ids = [[1, 2, row] for row in range(rows)]
    keys = [row.to_bytes(16, "big") for row in range(rows)]
    columns = {
        "pair_id": keys,
        "group_id": keys,
        "prompt_ids": ids,
        "chosen_ids": ids,
        "rejected_ids": ids,
        "weight": [1.0] * rows,
    }
    return pa.table([columns.get(name, [None] * rows) for name in TOKENS.names], schema=TOKENS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a small finished build of two shards, and return its directory."""
    (tmp_path / "tokens").mkdir()
    shards = []
    for number in range(2):
        name = f"tokens/train-{number:05d}-of-00002.arrow"
        seal = commit_file(tmp_path / name, lambda path: write_shard(path, token_table(5)))
        shards.append(
            ShardSeal(path=name, split="train", rows=5, tokens=45, bytes=seal.bytes,
                      sha256=seal.sha256)
        )  # fmt: skip
    write_manifest(tmp_path, shards)
    return tmp_path


def write_manifest(folder: Path, shards: list[ShardSeal]) -> None:
    lines = LineClasses(lines=10, blank=0, kept=10, duplicates=0, filtered=0, rejected=0)
    tokenizer = TokenizerIdentity(
        name="tiny", revision=None, tokenizer_sha256="0" * 64, template_sha256=None,
        vocab_size=9, bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    split = SplitStats(rows=10, groups=5, prompt_tokens=30, chosen_tokens=30, rejected_tokens=30)
    manifest = Manifest(
        tool_version="0", fingerprint="0" * 16, config={}, inputs=[], tokenizer=tokenizer,
        lines=lines, funnel=[], splits={"train": split}, shards=shards, files=[],
    )  # fmt: skip
    write_bytes(folder / "manifest.json", manifest.sealed().to_bytes())


def error_code(folder: Path) -> str:
    with pytest.raises(PrefdataError) as caught:
        prefdata.open(folder)
    return caught.value.code


def test_a_snapshot_in_the_cache_of_the_hub_opens_and_other_links_do_not(
    rows_file: Path, tiny: Path, tmp_path: Path
) -> None:
    """The layout is the one that `snapshot_download` makes of an uploaded directory."""
    made = prefdata.build(
        prefdata.BuildConfig(inputs=[str(rows_file)], tokenizer=str(tiny), out=tmp_path / "out")
    )
    repo = tmp_path / "hub" / "datasets--org--set"
    snapshot = repo / "snapshots" / ("0" * 40)
    for number, file in enumerate(path for path in made.path.rglob("*") if path.is_file()):
        blob, link = repo / "blobs" / str(number), snapshot / file.relative_to(made.path)
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(blob)
    assert prefdata.open(snapshot).manifest.hash == made.manifest.hash

    shard = snapshot / made.manifest.shards[0].path
    outside = tmp_path / "elsewhere"
    outside.write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to(outside)
    with pytest.raises(PrefdataError, match="E130"):
        prefdata.open(snapshot)


def test_a_finished_build_opens_and_maps_its_tokens(folder: Path) -> None:
    build = prefdata.open(folder)

    assert [shard.rows for shard in build.shards("train")] == [5, 5]
    assert build.tokens("train").num_rows == 10
    before = pa.total_allocated_bytes()
    ids = build.tokens("train").column("prompt_ids").chunk(0).values.to_numpy(zero_copy_only=True)
    assert pa.total_allocated_bytes() == before
    assert ids.dtype == np.int32
    assert build.manifest.is_whole()


def test_an_unknown_split_is_named_with_those_that_exist(folder: Path) -> None:
    with pytest.raises(PrefdataError, match="it has train"):
        prefdata.open(folder).tokens("test")


def test_a_folder_without_manifest_is_not_a_build(folder: Path) -> None:
    (folder / "manifest.json").unlink()

    assert error_code(folder) == "E132"


def test_every_flipped_bit_of_a_shard_is_caught(folder: Path) -> None:
    path = folder / "tokens/train-00001-of-00002.arrow"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, len(whole) * 8, 200):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)

        assert error_code(folder) == "E136"


def test_every_truncation_of_a_shard_is_caught(folder: Path) -> None:
    path = folder / "tokens/train-00000-of-00002.arrow"
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])

        assert error_code(folder) == "E135"


def test_a_flip_that_restores_the_times_is_caught_though_the_digest_is_remembered(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, cache = folder / "manifest.json", tmp_path_factory.mktemp("cache")
    old = (1_000_000_000_000_000_000,) * 2
    os.utime(path, ns=old)
    time.sleep(0.05)
    digest = sha256_cached(path, cache, settled=20_000_000)
    assert len(list(cache.iterdir())) == 1, "the digest is cached"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=old)

    assert sha256_cached(path, cache, settled=20_000_000) != digest


def test_swapped_shards_are_caught(folder: Path) -> None:
    first, second = (folder / f"tokens/train-0000{n}-of-00002.arrow" for n in (0, 1))
    first.write_bytes(first.read_bytes()[:-1] + b"x")

    assert error_code(folder) == "E136"
    first.unlink()
    assert error_code(folder) == "E135"
    assert second.exists()


OUTSIDE = [
    *("../x", "/etc/passwd", "a/../../b", "tokens/..", "..", ".", "/", "//x", "./a", "a/./b"),
    *("a//b", "a/", "", "a\0b", "a\\b", "..\\b", "c:x", "a\nb", "a\x1b[2J", "a\u202eb", "a\x7fb"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_cannot_name_a_path_outside_its_folder(folder: Path, name: str) -> None:
    write_manifest(
        folder, [ShardSeal(path=name, split="train", rows=5, tokens=1, bytes=1, sha256="0" * 64)]
    )

    assert error_code(folder) == "E131"


def test_names_that_differ_only_by_case_are_refused(folder: Path) -> None:
    seals = [
        ShardSeal(path=name, split="train", rows=5, tokens=1, bytes=1, sha256="0" * 64)
        for name in ("tokens/a", "tokens/A")
    ]
    write_manifest(folder, seals)

    assert error_code(folder) == "E131"


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = folder / "tokens/train-00000-of-00002.arrow"
    outside = tmp_path_factory.mktemp("outside") / "shard"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)
    assert error_code(folder) == "E130"

    path.unlink()
    path.symlink_to(path)
    assert error_code(folder) == "E130"


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """Yield the names of files that this process opens; a hook can be disabled, not removed."""
    names: list[str] = []
    rests: list[bool] = []

    def see(event: str, about: tuple[object, ...]) -> None:
        if event == "open" and not rests:
            names.append(str(about[0]))

    sys.addaudithook(see)
    yield names
    rests.append(True)


def to_folder(path: Path, _: Path) -> None:
    path.mkdir()


def to_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def to_device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def to_nothing(path: Path, _: Path) -> None:
    path.symlink_to("nowhere")


def to_outside(path: Path, outside: Path) -> None:
    path.symlink_to(outside / path.name)


def to_outside_by_folder(path: Path, outside: Path) -> None:
    path.parent.rename(path.parent.with_name("gone"))
    path.parent.symlink_to(outside)


@pytest.mark.parametrize(
    "replace", [to_folder, to_pipe, to_device, to_nothing, to_outside, to_outside_by_folder]
)
def test_a_replacement_of_a_shard_is_never_opened(
    replace: Callable[[Path, Path], None],
    folder: Path,
    opened: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A device or a pipe would hang its reader; the files outside are as the manifest says."""
    outside = tmp_path_factory.mktemp("outside")
    path = folder / "tokens/train-00000-of-00002.arrow"
    for shard in path.parent.iterdir():
        (outside / shard.name).write_bytes(shard.read_bytes())
    path.unlink()
    replace(path, outside)
    opened.clear()

    assert error_code(folder) in ("E130", "E135")
    assert not [name for name in opened if "train-00000" in name]


def test_an_edited_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    value = orjson.loads(path.read_bytes())
    path.write_bytes(to_json({**value, "tool_version": "9"}))
    assert error_code(folder) == "E133"

    path.write_bytes(to_json({**value, "format_version": 2}))
    assert error_code(folder) == "E134"

    for data in (b"", b"[]", b"{}", b"\xff", to_json({**value, "extra": 1})):
        path.write_bytes(data)
        assert error_code(folder) == "E133"


def test_a_failing_write_leaves_nothing_under_any_name(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        commit_file(tmp_path / "shard", fail)

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_pass_its_check_keeps_its_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def refuse(_: Path) -> None:
        raise ValueError("not what was meant")

    with pytest.raises(ValueError, match="not what was meant"):
        commit_file(path, lambda temporary: temporary.write_bytes(b"new"), refuse)

    assert path.read_bytes() == b"old"
    assert seal_file(path).bytes == 3


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        with pytest.raises(LockedError) as caught, lock_folder(tmp_path):
            pass
        assert caught.value.exit_code == 4

    with lock_folder(tmp_path):
        pass
