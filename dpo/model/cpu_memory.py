"""Memory of a long run on a CPU: keep what is freed, and remember fewer shapes.

Keep freed memory, so that each step finds the last step's pages again.

glibc hands large blocks back to the kernel as soon as they are freed and gets them zeroed, page by
page, at the next allocation. A training step allocates the same gigabytes each time; on a CPU the
page faults cost about a tenth of the step.

Every pack has a length of its own, so its products in bfloat16 have shapes of their own. oneDNN
keeps what it has made for each of the last 1,024, and torch as many beside it, a quarter of a
megabyte each. They lie between what steps free and take up again, which then fits no longer.
"""

import ctypes
import os
import sys

SHAPES = 256
"""That are remembered: five times those of a pack of 1,024 tokens, of which one had 51."""
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_ALL_BYTES = 2**31 - 1


def tune_cpu_allocator() -> None:
    """Keep what is freed from here on, and remember `SHAPES`, or what the environment says of it.

    Where the C library is not glibc, it does as it does.
    """
    for name in _CACHES:
        os.environ.setdefault(name, str(SHAPES))
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(threshold, _ALL_BYTES)
