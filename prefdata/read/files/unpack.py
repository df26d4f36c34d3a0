"""Decompressed bytes of a file, in blocks of bounded size.

The content decides, not the name. A compressed file counts as read only after its trailer has been
reached and verified, so a truncated download is an error and gives no rows.
"""

import hashlib
import zlib
from collections.abc import Iterator
from os import fstat
from typing import Any, BinaryIO

import zstandard

from prefdata.errors import UsageError
from prefdata.read.limits import Budget, Limits

BLOCK = 2**20
ZSTD_SLICE = 512  # a slice of this size decompresses to at most 16 MiB
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SKIPPABLE_STARTS = tuple(bytes([first]) for first in range(0x50, 0x60))
SKIPPABLE_TAIL, SKIPPABLE_HEAD = b"\x2a\x4d\x18", 8
SKIPPABLE = tuple(first + SKIPPABLE_TAIL for first in SKIPPABLE_STARTS)
"""First bytes of zstd frames without content; a length of four bytes follows."""
TWICE_BYTES = 16 * 2**20
"""Size up to which a compressed file is decompressed once before its rows are read."""
MAGIC = (GZIP, ZSTD, *SKIPPABLE)
"""First bytes of compressed files."""
ZSTD_WINDOW = 2**27
_UNPACK = "extract it, or compress it with gzip or zstd"
_FETCH = "fetch the file itself"
FOREIGN = {
    b"PK\x03\x04": ("a zip archive, as Excel workbooks are", _UNPACK),
    b"BZh": ("compressed by bzip2", _UNPACK),
    b"\xfd7zXZ\x00": ("compressed by xz", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed by lz4", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "save it as CSV in UTF-8"),
    b"SQLite format 3\x00": ("an SQLite database", "export the table as CSV or JSON Lines"),
    b"Obj\x01": ("an Avro file", "write it as Parquet"),
    b"\x89HDF": ("an HDF5 file", "write it as Parquet"),
    b"%PDF-": ("a PDF file", _FETCH),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file with `git lfs pull`"),
    b"<!DOCTYPE": ("a web page", _FETCH),
    b"<!doctype": ("a web page", _FETCH),
    b"<html": ("a web page", _FETCH),
}
TAR_MARK = slice(257, 262)


def refuse_foreign(head: bytes, name: str, *, is_unpacked: bool) -> None:
    """Raise E112 for an unsupported format, in the file or in its decompressed content."""
    if is_unpacked and head.startswith(MAGIC):
        problem = "is compressed twice: its decompressed content is gzip or zstd again"
        raise UsageError("E112", name, problem, "decompress it once")
    found = FOREIGN.get(next((mark for mark in FOREIGN if head.startswith(mark)), b""))
    if head[TAR_MARK] == b"ustar":
        found = "a tar archive", "extract it"
    if found:
        what, remedy = found
        inside = "once decompressed, " if is_unpacked else ""
        raise UsageError("E112", name, f"is {inside}{what}, which is not supported", remedy)


class _Frames:
    """State for skipping zstd frames without content."""

    def __init__(self) -> None:
        self.held, self.to_skip = b"", 0
        """Partial header of a skippable frame; number of its bytes still to skip."""

    def skip(self, data: bytes) -> bytes:
        """Return the data from the start of the next frame with content."""
        self.held = b""
        while data:
            if self.to_skip:
                data, self.to_skip = data[self.to_skip :], max(0, self.to_skip - len(data))
            elif not data.startswith(SKIPPABLE_STARTS):
                break
            elif len(data) < SKIPPABLE_HEAD:  # the rest is in the next slice
                self.held, data = data, b""
            elif not data.startswith(SKIPPABLE):
                break
            else:
                self.to_skip = int.from_bytes(data[4:SKIPPABLE_HEAD], "little")
                data = data[SKIPPABLE_HEAD:]
        return data


class HashedFile:
    """An open file that hashes and counts the bytes read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash, self.num_bytes = file, hashlib.sha256(), 0

    def blocks(self) -> Iterator[bytes]:
        while block := self.file.read(BLOCK):
            self.hash.update(block)
            self.num_bytes += len(block)
            yield block


class Unpacker:
    """Reader of a file's content as blocks: gzip, zstd or uncompressed."""

    def __init__(self, source: HashedFile, name: str, limits: Limits) -> None:
        self.source, self.name, self.limits = source, name, limits
        self.num_out = 0

    def blocks(self, magic: bytes) -> Iterator[bytes]:
        if not magic.startswith(MAGIC):
            return self.source.blocks()
        if fstat(self.source.file.fileno()).st_size <= TWICE_BYTES:
            for _ in Unpacker(HashedFile(self.source.file), self.name, self.limits)._packed(magic):
                pass  # a bomb or a cut file is found before its first row is read
            self.source.file.seek(0)
        return self._packed(magic)

    def _packed(self, magic: bytes) -> Iterator[bytes]:
        is_gzip = magic.startswith(GZIP)
        return self._counted(self._gunzip() if is_gzip else self._unzstd())

    def _counted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.num_out += len(block)
            budget = Budget(self.name, self.source.num_bytes, self.limits)
            budget.require_within(self.num_out, f"decompresses to over {self.num_out:,} bytes")
            for start in range(0, len(block), BLOCK):
                yield block[start : start + BLOCK]

    def _gunzip(self) -> Iterator[bytes]:
        unpack, members = None, 0
        for block in self.source.blocks():
            data = block
            while data:
                if unpack is None:
                    data = data.lstrip(b"\0") if members else data  # padding, as on tapes
                    if not data:
                        break
                    self._require_magic(data, GZIP)
                    unpack, members = zlib.decompressobj(wbits=31), members + 1
                try:
                    yield unpack.decompress(data, BLOCK)
                except zlib.error as error:
                    raise self._damaged(str(error)) from error
                data = unpack.unconsumed_tail
                if unpack.eof:
                    data, unpack = unpack.unused_data, None
        if unpack is not None:
            raise self._damaged("it ends before its trailer")

    def _unzstd(self) -> Iterator[bytes]:
        unpack: Any = None
        frames = _Frames()
        for block in self.source.blocks():
            for start in range(0, len(block), ZSTD_SLICE):
                data = frames.held + block[start : start + ZSTD_SLICE]
                while data := data if unpack else frames.skip(data):
                    if unpack is None:
                        self._require_magic(data, ZSTD)
                        unpack = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
                        unpack = unpack.decompressobj()
                    try:
                        yield unpack.decompress(data)
                    except zstandard.ZstdError as error:
                        raise self._damaged(str(error)) from error
                    data = unpack.unused_data if unpack.eof else b""
                    unpack = None if unpack.eof else unpack
        if frames.held:
            self._require_magic(frames.held, frames.held[:1] + SKIPPABLE_TAIL)
        if unpack is not None or frames.held or frames.to_skip:
            raise self._damaged("it ends inside a frame")

    def _require_magic(self, data: bytes, magic: bytes) -> None:
        """Raise E111 unless data starts like a member; its magic may span two blocks."""
        if not data.startswith(magic[: len(data)]):
            remedy = "remove them, or compress the file again"
            raise UsageError("E111", self.name, "has other bytes after its content", remedy)

    def _damaged(self, problem: str) -> UsageError:
        return UsageError(
            "E110", self.name, f"is damaged: {problem}", "fetch it again; none of its rows is used"
        )
