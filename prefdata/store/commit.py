"""Atomic writes of files: temporary name, fsync, check, rename, fsync of the directory.

A directory of files gets a manifest, written by `write_bytes` after all other files, so its
existence means that the directory is complete.
"""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from prefdata.errors import LockedError, UsageError

_MOST_NAME_BYTES = 255
_OPENS_DIRECTORIES = hasattr(os, "O_DIRECTORY")  # Windows opens only files

_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as libraries in Rust report it
DISK_REMEDY = "make room and run again: what is done is kept"


class FileDigest(NamedTuple):
    """Size and sha256 of a file, which reveal damage."""

    bytes: int
    sha256: str


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_file(path: Path) -> FileDigest:
    """Return the size and sha256 of a file, read from disk."""
    return FileDigest(path.stat().st_size, sha256_file(path))


def fsync_path(path: Path) -> None:
    """Force a file, or the names in a directory, to the disk; Windows forces only files."""
    if not _OPENS_DIRECTORIES and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if _OPENS_DIRECTORIES else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Return a file's temporary name; a second try overwrites what the first one left.

    Only prefdata uses this suffix, so no foreign file has such a name.
    """
    name = f".{path.name}.prefdata-tmp"
    if len(os.fsencode(name)) > _MOST_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.prefdata-tmp"
    return path.with_name(name)


def commit_file(
    path: Path, write: Callable[[Path], object], check: Callable[[Path], object] | None = None
) -> FileDigest:
    """Call `write` with a temporary name, check the file, then rename it.

    `check` re-opens the written file and raises if it is not as intended.
    """
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)  # a link here would redirect the writer
    try:
        write(temporary)
        fsync_path(temporary)
        if check is not None:
            check(temporary)
        seal = seal_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)
    return seal


def write_bytes(path: Path, data: bytes) -> FileDigest:
    """Commit a small file; it is read back before it is renamed."""

    def check(temporary: Path) -> None:
        if temporary.read_bytes() != data:
            message = f"{temporary} does not read back as it was written"
            raise OSError(message)

    return commit_file(path, lambda temporary: temporary.write_bytes(data), check)


def disk_fault(error: BaseException) -> str | None:
    """Return the system's message if an error is a disk fault; None otherwise.

    >>> disk_fault(RuntimeError("I/O error: No space left on device (os error 28)"))
    'No space left on device'
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (reason := _OS_ERROR.search(str(error))):
        number = int(reason[1])
    return os.strerror(number) if number in _DISK_FAULTS else None


def make_folder(path: Path) -> None:
    """Make an output directory, or raise E140 with the reason why it cannot be one."""
    remedy = "name a directory that can be written"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError("E140", str(path), f"cannot be made ({error.strerror})", remedy) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError("E140", str(path), "cannot be written", remedy)


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Lock a directory or file for one writer; the kernel unlocks it when the process ends."""
    try:
        unlock = _lock_beside(path) if fcntl is None else _lock_itself(path)
    except (BlockingIOError, TimeoutError) as error:
        remedy = f"wait for it, or name another {'directory' if path.is_dir() else 'file'}"
        raise LockedError("E141", str(path), "another process is writing here", remedy) from error
    try:
        yield
    finally:
        unlock()


def _lock_itself(path: Path) -> Callable[[], None]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return partial(os.close, descriptor)


def _lock_beside(path: Path) -> Callable[[], None]:
    """Lock a file next to a directory, which Windows cannot lock itself."""
    from filelock import FileLock

    lock = FileLock(path.absolute().with_name(f".{path.absolute().name}.prefdata-lock"))
    lock.acquire(timeout=0)
    return lock.release
