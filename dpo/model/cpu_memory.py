"""Memory settings for long runs on a CPU: keep freed memory, and cache fewer shapes.

glibc returns large blocks to the kernel as soon as they are freed, and gets them zeroed, page by
page, at the next allocation. A training step allocates the same gigabytes each time; on a CPU the
page faults cost about a tenth of the step. Keeping freed memory lets each step reuse its pages.

Every pack has its own length, so its products in bfloat16 have their own shapes. oneDNN caches a
primitive for each of the last 1,024 shapes, and torch as many again, a quarter of a megabyte each.
They fragment the memory that steps free, so the next allocations no longer fit in it.
"""

import ctypes
import gc
import os
import sys
from typing import Any

SHAPES = 256
"""Shapes that are cached: five times the 51 that a pack of 1,024 tokens had."""
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_ALL_BYTES = 2**31 - 1


def tune_cpu_allocator() -> None:
    """Stop glibc from returning freed memory, and cap the caches of oneDNN and torch at `SHAPES`.

    Caps that the environment sets are kept. If the C library is not glibc, only the caps are set.
    """
    for name in _CACHES:
        os.environ.setdefault(name, str(SHAPES))
    if (mallopt := _glibc("mallopt")) is not None:
        for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(threshold, _ALL_BYTES)


def return_freed_memory() -> None:
    """Return freed memory to the kernel now, at the end of a phase; a no-op without glibc."""
    gc.collect()
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def _glibc(name: str) -> Any:
    """Return a function of the C library, or None if that is not glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
