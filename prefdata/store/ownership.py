"""Rules of what a command may write: new files and its own ones; every other file is kept.

The rules are the same for all commands and are checked before any work is done:

* no file that the command reads is overwritten, by any path, link or hard link (E170);
* no foreign file is overwritten or removed (E171);
* no file of a manifest is written by another command (E173);
* a name that a disk or a manifest cannot hold is refused (E174).
"""

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from prefdata.errors import UsageError

IS_WINDOWS = sys.platform == "win32"
WINDOWS_REFUSES = re.compile(
    r'[<>:"|?*\x01-\x1f]|[ .]$|^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\.|$)', re.IGNORECASE
)
"""Characters and names of https://learn.microsoft.com/windows/win32/fileio/naming-a-file."""
MOST_NAME_BYTES = 255  # of one part of a path, on every file system of Linux
_HEAD_BYTES = 4096  # of a page, where its generator is named
_MOST_JSON_BYTES = 256 << 20
_OTHER = "name another output"


class Read(NamedTuple):
    """A file or directory that a command reads, and so must not write."""

    role: str
    """Name in messages: `an input`, `the base model`."""
    path: Path


def require_writable_name(path: Path) -> None:
    """Raise E174 for a path with a part that is too long, not UTF-8, or has a NUL."""
    for part in path.parts:
        data = os.fsencode(part)
        shown = part if len(part) <= 40 else f"{part[:40]}…"
        shown = shown.encode("utf-8", "backslashreplace").decode()
        if len(data) > MOST_NAME_BYTES:
            problem = f"has {len(data)} bytes in a name; {MOST_NAME_BYTES} are allowed"
            raise UsageError("E174", shown, problem, "choose a shorter name")
        if "\0" in part or not _is_utf8(data):
            problem = (
                "has a name that is not UTF-8" if "\0" not in part else "has a NUL in its name"
            )
            raise UsageError("E174", shown.replace("\0", "\\0"), problem, "rename it")
        if IS_WINDOWS and part not in (path.anchor, "..") and WINDOWS_REFUSES.search(part):
            raise UsageError("E174", shown, "has a name that Windows refuses", "rename it")


def require_apart(targets: Iterable[Path], reads: Iterable[Read]) -> None:
    """Raise E170 if a target is, or is a directory above, something that is read."""
    wanted = {identity(target): target for target in targets}
    for read in reads:
        real = Path(os.path.realpath(read.path))
        for path in (real, *real.parents):
            if (hit := wanted.get(identity(path))) is not None:
                where = "is" if path == real else "contains"
                shown = "" if str(read.path) == str(hit) else f" ({read.path})"
                problem = f"{where} {read.role} of this command{shown}"
                raise UsageError("E170", str(hit), problem, _OTHER)


def require_not_same(folder: Path, reads: Iterable[Read]) -> None:
    """Raise E170 if an output directory is itself read; new directories inside it are allowed."""
    for read in reads:
        if identity(folder) == identity(read.path):
            raise UsageError("E170", str(folder), f"is {read.role} of this command", _OTHER)


def require_not_below(folder: Path, reads: Iterable[Read]) -> None:
    """Raise E170 for an output in a directory of data, which the next run would read too."""
    for read in reads:
        above = {identity(path) for path in Path(os.path.realpath(folder)).parents}
        if read.path.is_dir() and identity(read.path) in above:
            problem = f"is in {read.path}, {read.role} of this command, and would be read too"
            raise UsageError("E170", str(folder), problem, _OTHER)


def require_new_or(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Raise E171 if a name is taken by anything except a file that `is_ours` accepts.

    An empty file is also accepted: tools make one to reserve a name.
    """
    require_writable_name(path)
    if not os.path.lexists(path):
        require_folder_for(path)
    elif path.is_symlink():
        raise UsageError("E171", str(path), "is a link", "name the file itself, or another one")
    elif path.is_dir():
        raise UsageError("E171", str(path), "is a directory", "name a file")
    elif not path.is_file() or not (path.stat().st_size == 0 or is_ours(path)):
        raise UsageError("E171", str(path), f"exists and is not {what}", _OTHER)


def require_folder_for(path: Path) -> None:
    """Raise E140 if a new file's directory does not exist and cannot be made."""
    nearest = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    remedy = "name a directory that can be written"
    if not nearest.is_dir():
        raise UsageError("E140", str(nearest), "is not a directory", remedy)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError("E140", str(nearest), "cannot be written", remedy)


def require_unsealed(path: Path) -> None:
    """Raise E173 for a file of a finished build, which writing it would damage."""
    real = Path(os.path.realpath(path))
    for folder in list(real.parents)[:3]:
        names = sealed_names(folder)
        if real.relative_to(folder).as_posix() in names:
            problem = f"is a file of the build in {folder}"
            raise UsageError("E173", str(path), problem, _OTHER)


def sealed_names(folder: Path) -> set[str]:
    """Return the names that a build's manifest owns in its directory; empty without a manifest."""
    value = _json_of(folder / "manifest.json")
    if not isinstance(value, dict) or value.get("format") != "prefdata-build":
        return set()
    entries = [*_listed(value.get("shards")), *_listed(value.get("files"))]
    return {"manifest.json", "README.md", "report.html", *entries}


def is_json_of(*formats: str) -> Callable[[Path], bool]:
    """Return a test for JSON files whose `format` is one of these."""

    def is_ours(path: Path) -> bool:
        value = _json_of(path)
        return isinstance(value, dict) and value.get("format") in formats

    return is_ours


def is_sarif(path: Path) -> bool:
    """Return whether a file is a SARIF log whose tool is prefdata."""
    value = _json_of(path)
    try:
        return bool(value["runs"][0]["tool"]["driver"]["name"] == "prefdata")
    except (TypeError, LookupError):
        return False


def is_page_of(generator: str) -> Callable[[Path], bool]:
    """Return a test for HTML pages that name this generator and a version."""
    mark = re.compile(rb'<meta name="generator" content="%s \d' % re.escape(generator).encode())

    def is_ours(path: Path) -> bool:
        with path.open("rb") as file:
            return mark.search(file.read(_HEAD_BYTES)) is not None

    return is_ours


def identity(path: Path) -> tuple[int, int] | str:
    """Return what all names of a file share: its device and inode, or its path if it is new."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return about.st_dev, about.st_ino


def free_name(path: Path) -> Path:
    """Return the first of `README.new.md`, `README.new-2.md` … that is not taken."""
    number = 1
    while True:
        suffix = ".new" if number == 1 else f".new-{number}"
        found = path.with_name(f"{path.stem}{suffix}{path.suffix}")
        if not os.path.lexists(found):
            return found
        number += 1


def _json_of(path: Path) -> Any:
    try:
        if not path.is_file() or path.stat().st_size > _MOST_JSON_BYTES:
            return None
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None


def _listed(entries: object) -> list[str]:
    found = entries if isinstance(entries, list) else []
    return [str(entry["path"]) for entry in found if isinstance(entry, dict) and "path" in entry]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
