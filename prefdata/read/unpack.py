"""A file's bytes, unpacked where they are packed, in blocks of bounded size.

What is inside decides, not the name. A packed file counts as read only when the packer's own
trailer has been reached and agrees, so a cut download gives an error and no rows.
"""

import hashlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from prefdata.errors import UsageError
from prefdata.read.limits import Limits

BLOCK = 2**20
ZSTD_SLICE = 512  # one such slice of a bomb unpacks to 16 MiB at most
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MAGIC = (GZIP, ZSTD)
"""How packed files begin."""
ZSTD_WINDOW = 2**27
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ\x00": "packed by xz",
    b"\x04\x22\x4d\x18": "packed by lz4",
    b"7z\xbc\xaf": "a 7z archive",
}


class HashedFile:
    """An open file that knows the sha256 and the number of the bytes it gave."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash, self.num_bytes = file, hashlib.sha256(), 0

    def blocks(self) -> Iterator[bytes]:
        while block := self.file.read(BLOCK):
            self.hash.update(block)
            self.num_bytes += len(block)
            yield block


class Unpacker:
    """Blocks of content out of a file, whatever it is packed with."""

    def __init__(self, source: HashedFile, name: str, limits: Limits) -> None:
        self.source, self.name, self.limits = source, name, limits
        self.num_out = 0

    def blocks(self, magic: bytes) -> Iterator[bytes]:
        if magic.startswith(GZIP):
            return self._counted(self._gunzip())
        if magic.startswith(ZSTD):
            return self._counted(self._unzstd())
        for mark, what in FOREIGN.items():
            if magic.startswith(mark):
                remedy = "unpack it, or pack it with gzip or zstd"
                raise UsageError("E112", self.name, f"is {what}, which is not read", remedy)
        return self.source.blocks()

    def _counted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        limits = self.limits
        for block in blocks:
            self.num_out += len(block)
            ratio = self.num_out / max(self.source.num_bytes, 1)
            bomb = self.num_out > limits.ratio_after_bytes and ratio > limits.max_ratio
            if bomb or self.num_out > limits.max_output_bytes:
                problem = f"unpacks to more than {self.num_out:,} bytes ({ratio:,.0f} to 1)"
                raise UsageError(
                    "E113", self.name, problem, "raise limits.max_ratio if it is meant"
                )
            for start in range(0, len(block), BLOCK):
                yield block[start : start + BLOCK]

    def _gunzip(self) -> Iterator[bytes]:
        unpack = None
        for block in self.source.blocks():
            data = block
            while data:
                if unpack is None:
                    self._require_magic(data, GZIP)
                    unpack = zlib.decompressobj(wbits=31)
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
        unpack = None
        for block in self.source.blocks():
            for start in range(0, len(block), ZSTD_SLICE):
                data = block[start : start + ZSTD_SLICE]
                while data:
                    if unpack is None:
                        self._require_magic(data, ZSTD)
                        unpack = zstandard.ZstdDecompressor(
                            max_window_size=ZSTD_WINDOW
                        ).decompressobj()
                    try:
                        yield unpack.decompress(data)
                    except zstandard.ZstdError as error:
                        raise self._damaged(str(error)) from error
                    data = unpack.unused_data if unpack.eof else b""
                    unpack = None if unpack.eof else unpack
        if unpack is not None:
            raise self._damaged("it ends inside a frame")

    def _require_magic(self, data: bytes, magic: bytes) -> None:
        """A further member begins like the first; its magic may lie across two blocks."""
        if not data.startswith(magic[: len(data)]):
            remedy = "cut it off, or pack the file again"
            raise UsageError("E111", self.name, "has other bytes after its packed content", remedy)

    def _damaged(self, problem: str) -> UsageError:
        return UsageError(
            "E110", self.name, f"is damaged: {problem}", "fetch it again; none of its rows is used"
        )
