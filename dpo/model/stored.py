"""Tensors in a safetensors file, of which only the requested rows are read.

The library maps files, whose pages then count as this process's memory, or reads whole tensors.
https://github.com/huggingface/safetensors#format: the header's length as 8 bytes, the header as
JSON, and the tensors, row by row.
"""

import os
from dataclasses import dataclass
from types import EllipsisType
from typing import BinaryIO

import orjson
import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8,
}  # fmt: skip
Index = slice | int | EllipsisType


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in an open file, indexed like a slice of safetensors."""

    file: BinaryIO
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self.dtype

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        """Read the rows that the first index selects, and apply the others to them."""
        indices = index if isinstance(index, tuple) else (index,)
        rows = indices[0]
        if not self.shape or not isinstance(rows, slice) or rows.step not in (None, 1):
            return self._read(0, self.shape)[index]
        start, stop, _ = rows.indices(self.shape[0])
        read = self._read(start, (max(0, stop - start), *self.shape[1:]))
        return read[(slice(None), *indices[1:])]

    def _read(self, first_row: int, shape: tuple[int, ...]) -> Tensor:
        found = torch.empty(shape, dtype=_DTYPES[self.dtype])
        row_bytes = found[:1].nbytes if shape else 0
        if not found.nbytes:
            return found
        view = found.view(-1).view(torch.uint8).numpy().data
        at = self.start + first_row * row_bytes
        while view:
            count = _read_at(self.file, view, at)
            if not count:
                message = f"{self.file.name} ends within a tensor"
                raise OSError(message)
            view, at = view[count:], at + count
        return found


def _read_at(file: BinaryIO, view: memoryview, at: int) -> int:
    """Read into a buffer from an offset, and return the number of bytes; 0 is the file's end."""
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [view], at)
    file.seek(at)  # Windows
    return file.readinto(view)  # type: ignore[attr-defined,no-any-return]


def stored_tensors(file: BinaryIO) -> dict[str, StoredTensor]:
    """Return the tensors of an open safetensors file by name; nothing but its header is read."""
    length = int.from_bytes(file.read(8), "little")
    header = orjson.loads(file.read(length))
    return {
        name: StoredTensor(
            file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0]
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
