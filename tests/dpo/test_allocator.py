"""What a process is told of its memory, seen in a process of its own."""

import os
import subprocess
import sys

import pytest

WIDE = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
SCRIPT = """
import ctypes, sys
from dpo.allocator import steady_memory
import torch

class Told(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Told
steady_memory()
weight = torch.ones(64, 64, dtype=torch.bfloat16)
for shapes in (300, 600):
    for rows in range(1, shapes):
        torch.ones(rows, 64, dtype=torch.bfloat16) @ weight
    print(libc.mallinfo2().h)
"""


def growth(**environment: str) -> int:
    """Bytes in use that another 300 shapes of products in bfloat16 add."""
    bare = {name: value for name, value in os.environ.items() if name not in WIDE}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=bare | environment, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    return after - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallinfo2 is of glibc")
def test_shapes_of_products_do_not_pile_up() -> None:
    if growth(**WIDE) < 2**20:
        pytest.skip("no products of oneDNN in bfloat16 here")

    assert growth() < 2**20
