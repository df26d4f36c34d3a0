"""Memory for a training step on a CPU: large pages, and freed memory that is kept.

glibc hands large blocks back to the kernel as soon as they are freed and gets them zeroed, page by
page, at the next allocation. A training step allocates the same gigabytes each time; on a CPU the
page faults cost about a tenth of the step. Where the kernel gives huge pages on request (madvise),
torch asks for them if it is told to before it allocates for the first time.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_ALL_BYTES = 2**31 - 1


def ask_for_huge_pages() -> None:
    """Tell torch to, by its own variable; call it before torch is imported."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed; False where the C library takes no such advice."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    thresholds = (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)
    return all(mallopt(threshold, _ALL_BYTES) == 1 for threshold in thresholds)
