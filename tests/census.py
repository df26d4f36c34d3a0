"""Snapshots of a directory's contents, so that a test sees which files a command touched.

before = snapshot(folder)
...run a command that writes `out` and `report.json`...
require_untouched(before, snapshot(folder), own=["out", "report.json"])
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path


def snapshot(path: Path) -> dict[str, str]:
    """Return the sha256 of every file in a directory tree, by relative path.

    A link is represented by its target, an empty directory or special file by its kind. Links are
    not followed, and names need not be UTF-8.
    """
    found: dict[str, str] = {}
    for folder, names, files in os.walk(path):
        here = Path(folder)
        links = [name for name in names if (here / name).is_symlink()]
        for name in [*files, *links]:
            found[str((here / name).relative_to(path))] = _content(here / name)
        if not names and not files and here != path:
            found[str(here.relative_to(path))] = "an empty directory"
    return found


def _content(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"a link to {path.readlink()}"
    if not stat.S_ISREG(mode):
        return f"a special file ({stat.S_IFMT(mode):o})"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def require_untouched(
    before: Mapping[str, str], after: Mapping[str, str], own: Iterable[str] = ()
) -> None:
    """Fail if a path outside `own` (files or directories) was changed, removed or added."""
    mine = tuple(own)
    changes = [
        f"{name!r} was {_change(before.get(name), after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
        and not any(name == one or name.startswith(f"{one}/") for one in mine)
    ]
    assert not changes, "; ".join(changes)


def _change(before: str | None, after: str | None) -> str:
    if before is None:
        return "added"
    return "removed" if after is None else "changed"
