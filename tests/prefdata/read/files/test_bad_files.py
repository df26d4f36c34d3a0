"""A fault of the file itself is one coded error, and none of its rows is delivered."""

import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zstandard

from prefdata.errors import UsageError
from prefdata.read import (
    Limits,
    OpenFile,
    Pairing,
    RowOptions,
    expand_inputs,
    load_layout,
    read_part,
)
from prefdata.read.files.source import require_unchanged, stamp
from prefdata.validation import ValidateOptions, validate
from tests.prefdata.read.rows import FileRows, read_file

Read = Callable[..., FileRows]

GOOD = [
    orjson.dumps({"prompt": f"The number {n} is", "chosen": f" {n}.", "rejected": " big."})
    for n in range(200)
]
TEXT = b"\n".join(GOOD) + b"\n"
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)
GZIP = gzip.compress(TEXT, mtime=0)


def zstd_cut_between_blocks() -> bytes:
    """Return half of the rows as whole blocks of a frame without its end."""
    writer = zstandard.ZstdCompressor().compressobj()
    half = b"\n".join(GOOD[:100]) + b"\n"
    return writer.compress(half) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def skippable(content: bytes, first: int = 0x50) -> bytes:
    """Return a zstd frame that every reader skips, as pzstd and seekable files have."""
    return bytes([first]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


BAD_FILES = {
    "7 UTF-16 with mark": (TEXT.decode().encode("utf-16"), "E102"),
    "7 UTF-16 without": (TEXT.decode().encode("utf-16-le"), "E102"),
    "7 UTF-32": (TEXT.decode().encode("utf-32"), "E102"),
    "9 CR only": (b"\r".join(GOOD), "E103"),
    "38 pretty-printed": (orjson.dumps({"prompt": "a"}, option=orjson.OPT_INDENT_2) * 3, "E105"),
    "37 array cut": (b"[" + b",".join(GOOD)[:-5], "E105"),
    "37 array, comma at the end": (b"[" + b",".join(GOOD) + b",]", "E105"),
    "37 array, two commas": (b"[" + b",,".join(GOOD) + b"]", "E105"),
    "37 array and more": (b"[" + b",".join(GOOD) + b"] x", "E105"),
    "55 gzip cut": (GZIP[:-20], "E110"),
    "55 gzip without trailer": (GZIP[:-8], "E110"),
    "56 gzip bit flip": (flipped(GZIP, len(GZIP) // 2), "E110"),
    "57 gzip bad CRC": (flipped(GZIP, len(GZIP) - 6), "E110"),
    "58 gzip and garbage": (GZIP + b"garbage", "E111"),
    "60 a zip archive": (b"PK\x03\x04rest", "E112"),
    "gzip in gzip": (gzip.compress(GZIP), "E112"),
    "zstd in gzip": (gzip.compress(ZSTD), "E112"),
    "gzip in zstd": (zstandard.compress(GZIP), "E112"),
    "a skippable frame in gzip": (gzip.compress(skippable(b"x")), "E112"),
    "Parquet in gzip": (gzip.compress(b"PAR1" + b"\0" * 100), "E112"),
    "Arrow in zstd": (zstandard.compress(b"ARROW1\0\0" + b"\0" * 100), "E112"),
    "an Arrow stream in gzip": (gzip.compress(b"\xff\xff\xff\xff\x10\0\0\0"), "E117"),
    "a zip archive in gzip": (gzip.compress(b"PK\x03\x04rest"), "E112"),
    "tar in gzip": (gzip.compress(b"name".ljust(257, b"\0") + b"ustar" + b"\0" * 300), "E112"),
    "tar": (b"name".ljust(257, b"\0") + b"ustar" + b"\0" * 300, "E112"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid x\n", "E112"),
    "a web page": (b"<!DOCTYPE html><html></html>\n", "E112"),
    "zstd, its skippable frame cut": (ZSTD + skippable(b"index")[:-1], "E110"),
    "zstd, its skippable head cut": (ZSTD + skippable(b"index")[:6], "E110"),
    "zstd and what looks skippable": (ZSTD + b"PARIS", "E111"),
    "gzip, zeros and garbage": (GZIP + b"\0" * 100 + b"x", "E111"),
    "62 zstd cut in a block": (ZSTD[:-20], "E110"),
    "62 zstd cut between blocks": (zstd_cut_between_blocks(), "E110"),
    "63 zstd bad checksum": (flipped(ZSTD, len(ZSTD) - 2), "E110"),
    "63 zstd and garbage": (ZSTD + b"garbage", "E111"),
    "69 Arrow stream": (b"\xff\xff\xff\xff\x10\0\0\0", "E117"),
    "67 Parquet cut": (b"PAR1" + b"\0" * 100, "E114"),
    "70 Arrow file cut": (b"ARROW1\0\0" + b"\0" * 100, "E114"),
}


@pytest.mark.parametrize(("content", "code"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_error(read: Read, content: bytes, code: str) -> None:
    with pytest.raises(UsageError, match=rf"\[{code}\]$"):
        read(content)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_file_that_is_compressed_twice_is_reported(
    read: Read, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(UsageError, match=r"compressed twice: .* zstd again; decompress it once"):
        read(pack(GZIP))


FINE_FILES = {
    "8 CRLF": (TEXT.replace(b"\n", b"\r\n"), 200),
    "10 mixed ends": (TEXT.replace(b"\n", b"\r\n", 50), 200),
    "13 blank lines": (TEXT.replace(b"\n", b"\n \t\n\n"), 200),
    "37 one array": (b"[" + b",\n ".join(GOOD) + b"]\n", 200),
    "37 pretty array": (
        orjson.dumps([orjson.loads(g) for g in GOOD], option=orjson.OPT_INDENT_2),
        200,
    ),
    "59 gzip of two members": (GZIP + GZIP, 400),
    "61 gzip under another name": (GZIP, 200),
    "64 zstd of two frames": (ZSTD + ZSTD, 400),
    "zstd between skippable frames": (skippable(b"a" * 9) + ZSTD + skippable(b"", 0x5F), 200),
    "zstd with a large skippable frame": (ZSTD + skippable(bytes(2_000_000)) + ZSTD, 400),
    "zstd of skippable frames only": (skippable(b"a") + skippable(b"b"), 0),
    "gzip padded with zeros": (GZIP + bytes(1000), 200),
    "65 gzip of nothing": (gzip.compress(b""), 0),
}


@pytest.mark.parametrize(("content", "pairs"), FINE_FILES.values(), ids=FINE_FILES.keys())
def test_a_fine_file_gives_all_its_rows(read: Read, content: bytes, pairs: int) -> None:
    rows = read(content)

    assert (rows.counts.pairs, rows.counts.rejected) == (pairs, 0)
    assert rows.counts.lines - rows.counts.blank == pairs


@pytest.mark.parametrize("content", [b"", b"\n\n \n", gzip.compress(b"", mtime=0)], ids=repr)
def test_an_empty_file_gives_no_rows_and_says_so(read: Read, content: bytes) -> None:
    rows = read(content)

    assert rows.records.num_rows == 0
    assert rows.notes == ("contains no rows [E101]",)


def test_line_ends_do_not_change_the_ids_of_pairs(read: Read) -> None:
    with_lf, with_crlf = read(TEXT), read(TEXT.replace(b"\n", b"\r\n"))

    assert with_lf.records["pair_id"] == with_crlf.records["pair_id"]


def test_byte_order_marks_are_stripped_and_counted(read: Read) -> None:
    bom = b"\xef\xbb\xbf"

    rows = read(bom + TEXT + bom + TEXT)

    assert (rows.counts.bom, rows.counts.pairs, rows.counts.rejected) == (2, 400, 0)


def test_array_elements_know_their_bytes(read: Read) -> None:
    content = b"[ " + b" , ".join([*GOOD[:2], b"[1]", GOOD[2]]) + b" ]"

    rows = read(content)

    (refused,) = rows.rejected.to_pylist()
    assert (refused["line"], refused["code"], refused["raw"]) == (3, "R209", b"[1]")
    assert content[refused["offset"] :].startswith(b"[1]")
    assert rows.records["line"].to_pylist() == [1, 2, 4]


def test_a_text_file_named_gz_is_read_as_what_it_is(read: Read) -> None:
    assert read(TEXT, name="rows.jsonl.gz").counts.pairs == 200


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_is_refused(read: Read, pack: Callable[[bytes], bytes]) -> None:
    limits = Limits(ratio_after_bytes=1 << 20)

    with pytest.raises(UsageError, match=r"\[E113\]$"):
        read(pack(b"\n" * (8 << 20)), limits=limits)


def test_a_glob_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent-\*\.jsonl: no such file.*\[E100\]$"):
        expand_inputs([str(tmp_path / "absent-*.jsonl")])


def test_globs_are_sorted_and_each_file_is_taken_once(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c[1].jsonl"):
        (tmp_path / name).touch()

    files = expand_inputs([str(tmp_path / "c[1].jsonl"), str(tmp_path / "*.jsonl")])

    assert [file.path.name for file in files] == ["c[1].jsonl", "a.jsonl", "b.jsonl"]
    assert [file.index for file in files] == [0, 1, 2]


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in (tmp_path, *sorted(tmp_path.iterdir()), Path("/dev/zero")):
            with pytest.raises(UsageError, match=r"\[E116\]$"):
                expand_inputs([str(path)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_bytes(TEXT)
    path.chmod(0)

    with pytest.raises(UsageError, match=r"\[E116\]$"):
        expand_inputs([str(path)])


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(TEXT)
    (file,) = expand_inputs([str(path)])
    before = stamp(file)

    with path.open("ab") as log:
        log.write(TEXT)

    with pytest.raises(UsageError, match=r"\[E115\]$"):
        require_unchanged(file, before, is_whole=True)
    with pytest.raises(UsageError, match=r"\[E115\]$"):
        require_unchanged(file, stamp(file), is_whole=False)


def test_lines_that_change_before_they_are_fetched_are_refused(tmp_path: Path) -> None:
    """A worker reads its lines of an uncompressed file itself."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(TEXT)
    (file,) = expand_inputs([str(path)])
    (block,) = OpenFile(file, Limits())
    options = RowOptions(load_layout("trl-std-explicit"), Pairing(), Limits())
    assert read_part(file, block, options).counts.pairs == 200

    path.write_bytes(TEXT.replace(b"big", b"odd"))

    with pytest.raises(UsageError, match=r"\[E115\]$"):
        read_part(file, block, options)


def test_a_file_that_vanished_since_it_was_named_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(TEXT)
    (file,) = expand_inputs([str(path)])
    path.unlink()

    with pytest.raises(UsageError, match=r"\[E116\]$"):
        read_file(file)


@pytest.mark.parametrize("name", ["build.yaml", "mine.YML"])
def test_a_config_is_not_data(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("inputs: [rows.jsonl]\ntokenizer: model\n")

    with pytest.raises(UsageError, match=r"is YAML, a config or a layout.*prefdata build.*E112"):
        validate([str(path)], ValidateOptions(workers=1))


def test_rows_in_a_file_with_the_name_of_a_config_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text('{"prompt": "Say it", "chosen": "a", "rejected": "b"}\n')

    assert validate([str(path)], ValidateOptions(workers=1)).lines.kept == 1
