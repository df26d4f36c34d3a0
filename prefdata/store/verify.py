"""sha256 of files, cached as long as a file cannot have changed.

A digest is kept in the user's cache directory under the file's device and inode, with size, mtime
and ctime. Any write moves ctime, and no program can set it back. A file that changed within the
last two seconds is never cached: a second write could fall into the same tick of the clock.

Bit rot below the file system changes no timestamp. So training and computing log-probs do not use
the cache: they hash each file that they read, at its first use.
"""

import os
import time
from pathlib import Path

from prefdata.errors import UsageError
from prefdata.store.commit import FileDigest, sha256_file

_SETTLED_NANOSECONDS = 2_000_000_000
_REMEDY = "restore it, or build again with --replace"


def cache_folder() -> Path:
    """Return the cache directory: `$XDG_CACHE_HOME/prefdata`, or `~/.cache/prefdata`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prefdata"


def sha256_cached(path: Path, cache: Path, *, settled: int = _SETTLED_NANOSECONDS) -> str:
    """Return the sha256 of a file; read the file only if it may have changed since the last time.

    `settled` is the age, in nanoseconds, from which a change is old enough to be cached.
    """
    before = _identity(path)
    entry = cache / f"{before[0]:x}-{before[1]:x}"
    known = _recall(entry, before)
    if known is not None:
        return known
    digest = sha256_file(path)
    is_old = time.time_ns() - max(before[3], before[4]) > settled
    if is_old and _identity(path) == before:
        _remember(entry, before, digest)
    return digest


def check_seal(path: Path, seal: FileDigest, cache: Path | None) -> None:
    """Refuse a file that is missing or does not match its digest.

    Without a `cache` it is always read whole; with one, only if it may have changed.
    """
    check_size(path, seal)
    digest = sha256_file(path) if cache is None else sha256_cached(path, cache)
    if digest != seal.sha256:
        problem = "is damaged: its sha256 does not match the manifest"
        raise UsageError("E136", str(path), problem, _REMEDY)


def check_size(path: Path, seal: FileDigest) -> None:
    """Refuse a file that is missing or has another size; its bytes are not read."""
    if not path.is_file():
        raise UsageError("E135", str(path), "is missing, though the manifest lists it", _REMEDY)
    size = path.stat().st_size
    if size != seal.bytes:
        problem = f"has {size:,} bytes; the manifest says {seal.bytes:,}"
        raise UsageError("E135", str(path), problem, _REMEDY)


class SealsOnce:
    """Checks of files at their first use: every byte is hashed once in a process.

    A file that was replaced or written since is hashed again.
    """

    def __init__(self) -> None:
        self._checked: dict[Path, tuple[int, ...]] = {}

    def check(self, path: Path, seal: FileDigest) -> None:
        """Refuse a file that is missing or does not match its digest."""
        if not self._is_known(path):
            check_size(path, seal)
            identity = _identity(path)
            check_seal(path, seal, None)
            self._checked[path] = identity

    def _is_known(self, path: Path) -> bool:
        """Return whether a file was checked and is unchanged."""
        try:
            return path in self._checked and self._checked[path] == _identity(path)
        except OSError:
            return False


def _identity(path: Path) -> tuple[int, int, int, int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _recall(entry: Path, identity: tuple[int, ...]) -> str | None:
    try:
        *numbers, digest = entry.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    matches = numbers == [str(number) for number in identity] and len(digest) == 64
    return digest if matches else None


def _remember(entry: Path, identity: tuple[int, ...], digest: str) -> None:
    temporary = entry.with_name(f"{entry.name}.{os.getpid()}")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(" ".join([*map(str, identity), digest]), encoding="utf-8")
        temporary.replace(entry)
    except OSError:  # no room, or no home: the next reader hashes again
        return
