"""Caches of a training process stay bounded, measured in a separate process."""

import os
import subprocess
import sys

import pytest

WIDE = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
# Shapes come in random order: on some CPUs, kernels of large products use more memory than those of
# small ones, so in ascending order a bounded cache would seem to grow.
SCRIPT = """
import ctypes, random, sys
from dpo.model.cpu_memory import tune_cpu_allocator
import torch

class HeapNumbers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = HeapNumbers
tune_cpu_allocator()
weight = torch.ones(64, 64, dtype=torch.bfloat16)
shapes = random.Random(0).sample(range(1, 701), 500)
for some in (shapes[:200], shapes[200:]):
    for rows in some:
        torch.ones(rows, 64, dtype=torch.bfloat16) @ weight
    print(libc.mallinfo2().h)
"""


def measure_growth(**environment: str) -> int:
    """Return the growth of bytes in use from 300 more shapes of products in bfloat16."""
    bare = {name: value for name, value in os.environ.items() if name not in WIDE}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=bare | environment, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    before, after = map(int, done.stdout.split())
    return after - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallinfo2 is of glibc")
def test_shapes_of_products_do_not_pile_up() -> None:
    unbounded = measure_growth(**WIDE)
    if unbounded < 2**20:
        pytest.skip("no products of oneDNN in bfloat16 here")

    assert measure_growth() < unbounded / 4
