"""Directory of reference log-probs, `reference/NAME` in a build, and checks that it is ours."""

import os
import re
from pathlib import Path

from dpo.errors import UsageError
from prefdata.errors import UsageError as OutputError
from prefdata.store.ownership import identity

MANIFEST, PARTIAL = "manifest.json", "partial.json"
PIECE = ".from-"
_PLAIN = re.compile(r"[^\W_.-][\w.+-]{0,99}")
_OWN_FILE = re.compile(
    r"[^/]+-\d{5}-of-\d{5}\.arrow(\.from-\d{8})?|manifest\.json|partial\.json|\..*\.prefdata-tmp"
)


def reference_folder(build: Path, name: str | Path) -> Path:
    """Return the directory of log-probs by their name; a `Path` is returned unchanged.

    Raises UsageError (T161) unless the name is plain, so that it cannot lead outside the build.
    """
    if isinstance(name, Path):
        return name
    if not _PLAIN.fullmatch(name):
        shown = name if len(name) <= 40 else f"{name[:40]}…"
        problem = "is not a plain name"
        remedy = "use letters, digits and . _ + - in it, at most 100, a letter or digit first"
        raise UsageError("T161", f"name {shown!a}", problem, remedy)
    folder = build / "reference" / name
    siblings = (
        sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
    )
    same = next(
        (one for one in siblings if one != name and one.casefold() == name.casefold()), None
    )
    if same is not None and name not in siblings:
        problem = f"differs from {same!r} only in case, which some file systems ignore"
        raise UsageError("T161", f"name {name!a}", problem, "choose another --name")
    return folder


def require_own_reference(folder: Path, build: Path) -> None:
    """Raise E171 if a directory is not empty and contains no manifest of dpo-ref.

    Raises E170 if it is the build itself or a directory of it: its files have the same names.
    """
    if not os.path.lexists(folder):
        return
    remedy = "choose another name"
    if not folder.is_dir():
        raise OutputError("E171", str(folder), "is not a directory", remedy)
    of_build = [build, *(build / name for name in ("tokens", "text", "rejected", "reference"))]
    if any(identity(folder) == identity(path) for path in of_build):
        raise OutputError("E170", str(folder), "is a directory of the build", remedy)
    known = [folder / MANIFEST, folder / PARTIAL]
    if not any(path.is_file() for path in known) and any(folder.iterdir()):
        raise OutputError("E171", str(folder), "contains files that dpo-ref did not write", remedy)


def discard_reference(folder: Path) -> None:
    """Remove log-probs that are no longer needed; keep files with other names."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
        if _OWN_FILE.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
