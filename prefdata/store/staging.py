"""Staging of a build: files grow in `.building/` until all of them can be renamed at once.

    .building/
      journal.jsonl   the fingerprint of the build, then one line for each finished step
      parts/ tokens/ text/ rejected/ …   its files
      aside/MARK/     the same for killed builds with other fingerprints
      moving/         files of the old build, before any file of the new one is renamed
      replaced/       the same, while files are renamed

No file has its final name before the whole build is there. A killed build leaves its files and a
journal of their hashes; the next build with the same fingerprint reuses each file whose size and
sha256 still match, and makes the others again. An old build is moved away only when the new one is
ready, and moved back if the renaming fails or is killed.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pyarrow as pa
from pydantic import TypeAdapter

from prefdata.errors import UsageError
from prefdata.store.commit import (
    FileDigest,
    fsync_path,
    make_folder,
    seal_file,
    temporary_name,
    write_bytes,
)
from prefdata.store.manifest import NAME
from prefdata.store.shards import read_shard, write_shard

Facts = TypeVar("Facts")

FOLDER = ".building"
FOLDERS = ("tokens", "text", "rejected")
"""Directories in which a build owns files."""
PAGE = "report.html"
"""The report as a page, with text of refused rows: not in the manifest, as it is not shared so."""
DUPLICATES_FILE, NEAR_FILE = "duplicates.parquet", "near.parquet"
FILES = (NAME, "README.md", "report.json", PAGE, DUPLICATES_FILE, NEAR_FILE)
_JOURNAL = "journal.jsonl"
_ASIDE, _MOVING, _REPLACED = "aside", "moving", "replaced"
_COMMIT = "commit"  # the step under which the journal lists all final names
_OWN = {"parts", *FOLDERS, *FILES, _JOURNAL, _ASIDE, _MOVING, _REPLACED}
_OWN_FILE = re.compile(r"[^/]*\d{5}[^/]*\.(arrow|parquet)")  # in the directories above
_MARK = re.compile(rb"[0-9a-f]{16}")


def write_staged(path: Path, write: Callable[[Path], object]) -> FileDigest:
    """Write a file, force it to the disk, and return the digest of what is then read back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    fsync_path(path)
    return seal_file(path)


def stage_table(path: Path, table: pa.Table) -> FileDigest:
    """Write a table that only this build reads; at a resume its digest reveals a torn write."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return stage_bytes(path, memoryview(sink.getvalue()))


def stage_bytes(path: Path, data: memoryview) -> FileDigest:
    """Write bytes that only this build reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return FileDigest(len(data), hashlib.sha256(data).hexdigest())


def stage_shard(path: Path, tokens: pa.Table, *, rows: int) -> FileDigest:
    """Write a token shard, check that it reads back, and return its digest."""

    def write(path: Path) -> None:
        write_shard(path, tokens)
        read_shard(path, rows=rows)

    return write_staged(path, write)


class Staging:
    """Growing files of one build, in a directory that this process has locked."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out = out
        self.root = out / FOLDER
        self._journal = self.root / _JOURNAL
        self._mark, self._put_aside = fingerprint, ""
        require_own_staging(out, fingerprint)
        undo_commit(out)
        self._swap()
        self._entries = _read_journal(self._journal)
        self.is_resumed = bool(self._entries)
        """True if an earlier process left finished steps of this build."""

    def known(
        self, name: str, facts: TypeAdapter[Facts]
    ) -> tuple[dict[str, FileDigest], Facts] | None:
        """Return files and facts of a finished step; None if a file does not match its digest."""
        entry = self._entries.get(name)
        if entry is None or not all(self._is_whole(*file) for file in entry["files"]):
            return None
        files = {path: FileDigest(*seal) for path, *seal in entry["files"]}
        return files, facts.validate_python(entry["facts"])

    def record(self, name: str, files: dict[str, FileDigest], facts: object) -> None:
        """Record a finished step: its files, relative to the directory, and its facts."""
        entry = {"name": name, "files": [[path, *seal] for path, seal in files.items()]}
        line = orjson.dumps({**entry, "facts": facts}, default=list, option=orjson.OPT_NON_STR_KEYS)
        with self._journal.open("ab") as journal:
            journal.write(b"\n" + line)  # so a line cut by a kill damages no other

    def commit(
        self, files: dict[str, FileDigest], manifest: bytes, *, replaces: Collection[str] = ()
    ) -> None:
        """Rename every file, then write the manifest, which completes the build.

        `replaces` are the names of the old build; the directory ends with the whole old build or
        the whole new one. Raises E171 before any change if a name is taken by a foreign file.
        """
        stale = _placed(self.root / _ASIDE) - files.keys()
        own = {*replaces, *stale, *placed_names(self.out)}
        require_free(self.out, [*files, NAME], own)
        for name in files:
            if not (self.root / name).exists():  # a finished build has already renamed it
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.out / name, self.root / name)
        self.record(_COMMIT, files, None)
        fsync_path(self._journal)
        try:
            self._set_aside({*replaces, *stale})
            self._place(files)
            write_bytes(self.out / NAME, manifest)
        except OSError:
            undo_commit(self.out)
            raise
        discard_at(self.out)

    def place_of(self, name: str) -> Path:
        """Return the current path of a file of the build."""
        staged = self.root / name
        return staged if staged.exists() else self.out / name

    def abandon(self) -> None:
        """Remove what this process began; what an earlier one left is kept."""
        if self.is_resumed:
            return
        _remove_own(self.root)
        (self.root / _JOURNAL).unlink(missing_ok=True)
        if self._put_aside:
            _move_own(self.root / _ASIDE / self._put_aside, self.root)
        _remove_empty(self.root / _ASIDE, self.root)

    def _set_aside(self, replaces: Collection[str]) -> None:
        """Move the old build away, its manifest first."""
        moving = self.root / _MOVING
        moving.mkdir(exist_ok=True)
        for name in sorted(replaces, key=lambda name: name != NAME):
            if os.path.lexists(self.out / name):
                (moving / name).parent.mkdir(parents=True, exist_ok=True)
                (self.out / name).replace(moving / name)
        moving.rename(self.root / _REPLACED)

    def _place(self, files: dict[str, FileDigest]) -> None:
        folders = {self.out}
        for name in files:
            staged, final = self.root / name, self.out / name
            make_folder(final.parent)
            folders.add(final.parent)
            staged.replace(final)
        for folder in sorted(folders):
            fsync_path(folder)

    def _is_whole(self, name: str, size: int, sha256: str) -> bool:
        for path in (self.root / name, self.out / name):
            if path.is_file() and path.stat().st_size == size:
                return seal_file(path) == FileDigest(size, sha256)
        return False

    def _swap(self) -> None:
        """Move what is left of another build aside, and restore what is left of this one."""
        self.root.mkdir(exist_ok=True, parents=True)
        there = _mark_of(self._journal)
        if there == self._mark:
            return
        if there is not None:
            _move_own(self.root, self.root / _ASIDE / there)
            self._put_aside = there
        else:
            _remove_own(self.root)
        mine = self.root / _ASIDE / self._mark
        if _mark_of(mine / _JOURNAL) == self._mark:
            _move_own(mine, self.root)
            _remove_empty(mine, self.root / _ASIDE)
        else:
            write_bytes(self._journal, self._mark.encode())


def require_own_staging(out: Path, fingerprint: str = "") -> None:
    """Raise E172 for a `.building` that was not made by a build."""
    root = out / FOLDER
    if not os.path.lexists(root) or _is_ours(root, fingerprint):
        return
    problem = "was not made by a build, so it is left alone"
    raise UsageError("E172", str(root), problem, "name another output directory")


def has_own_staging(out: Path) -> bool:
    """Return whether a build was begun here and not finished."""
    return os.path.lexists(out / FOLDER) and _is_ours(out / FOLDER, "")


def placed_names(out: Path) -> set[str]:
    """Return the final names that killed builds had begun to assign here."""
    root = out / FOLDER
    return _placed(root) | _placed(root / _ASIDE)


def _placed(folder: Path) -> set[str]:
    journals = [folder / _JOURNAL, *sorted(folder.glob("*/" + _JOURNAL))]
    found = (_read_journal(path).get(_COMMIT, {"files": []}) for path in journals)
    return {name for entry in found for name, *_ in entry["files"]}


def require_free(out: Path, names: Collection[str], own: Collection[str]) -> None:
    """Raise E171 if a name in a directory is taken, or is behind a link or a file."""
    remedy = "move it away, or name another output directory"
    for name in names:
        path = out / name
        for folder in (out / part for part in list(Path(name).parents)[:-1]):
            if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
                problem = "is not a directory, but the build has one of that name"
                raise UsageError("E171", str(folder), problem, remedy)
        if os.path.lexists(path) and (name not in own or path.is_dir()):
            problem = "was not made by a build here, but the build has a file of that name"
            raise UsageError("E171", str(path), problem, remedy)


def undo_commit(out: Path) -> None:
    """Move an old build back to its names if the new one did not get its manifest.

    A kill on the way leaves `moving/` with what is still to be moved, the manifest last.
    """
    root = out / FOLDER
    moving, replaced = root / _MOVING, root / _REPLACED
    if not has_own_staging(out):
        return
    if os.path.lexists(out / NAME):  # the new build was complete before the kill
        _remove_tree(replaced)
        _remove_empty(*sorted(moving.rglob("*"), reverse=True), moving)
        return
    if replaced.is_dir():
        for name in _placed(root):
            if os.path.lexists(out / name):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).replace(root / name)
        replaced.rename(moving)
    moved = [path.relative_to(moving) for path in moving.rglob("*") if not path.is_dir()]
    for path in sorted(moved, key=lambda path: str(path) == NAME):
        (moving / path).replace(out / path)
    _remove_tree(moving)


def _remove_tree(folder: Path) -> None:
    """Remove a directory that contains only what was moved there."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    _remove_empty(folder)


def discard_at(out: Path) -> None:
    """Remove what builds left in a staging directory, its journal last."""
    root = out / FOLDER
    if not os.path.lexists(root) or not _is_ours(root, ""):
        return
    for aside in (root / _ASIDE).glob("*"):
        _remove_own(aside)
        (aside / _JOURNAL).unlink(missing_ok=True)
        _remove_empty(aside)
    if os.path.lexists(out / NAME):
        _remove_tree(root / _REPLACED)
    _remove_own(root)
    (root / _JOURNAL).unlink(missing_ok=True)
    _remove_empty(root / _ASIDE, root)


def _is_ours(root: Path, fingerprint: str) -> bool:
    """Return whether a staging directory has a build's journal, or is empty after an early kill.

    A directory with links is not a build's: writes through them would land elsewhere.
    """
    if root.is_symlink() or not root.is_dir():
        return False
    names = {path.name for path in root.iterdir()}
    if any((root / name).is_symlink() for name in names & _OWN):
        return False
    journals = [root / _JOURNAL, *(root / _ASIDE).glob("*/" + _JOURNAL)]
    is_new = names <= {temporary_name(root / _JOURNAL).name}
    return is_new or any(_mark_of(path, fingerprint) is not None for path in journals)


def _mark_of(journal: Path, fingerprint: str = "") -> str | None:
    """Return the fingerprint in a journal; None if it has none."""
    try:
        first = journal.read_bytes().partition(b"\n")[0]
    except OSError:
        return None
    is_mark = _MARK.fullmatch(first) or first == fingerprint.encode() != b""
    return first.decode() if is_mark else None


def _read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    try:
        lines = journal.read_bytes().split(b"\n")[1:]
    except OSError:
        return {}
    entries = {}
    for line in lines:
        try:
            entry = orjson.loads(line)
            entries[entry["name"]] = entry
        except (orjson.JSONDecodeError, TypeError, KeyError):  # cut by a kill
            continue
    return entries


def _own_files(root: Path) -> list[Path]:
    """Return the files of a staging directory that a build made, without foreign ones."""
    found = [root / name for name in FILES if (root / name).is_file()]
    found += root.glob("README.new*.md")
    for folder in ("parts", *FOLDERS):
        if not (root / folder).is_symlink():
            found += [p for p in (root / folder).glob("*") if _OWN_FILE.fullmatch(p.name)]
    return found


def _remove_own(root: Path) -> None:
    for path in _own_files(root):
        path.unlink()
    _remove_empty(*(root / folder for folder in ("parts", *FOLDERS)))


def _move_own(source: Path, target: Path) -> None:
    """Move a build's files and, last, its journal."""
    for path in _own_files(source):
        moved = target / path.relative_to(source)
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.replace(moved)
    target.mkdir(parents=True, exist_ok=True)
    (source / _JOURNAL).replace(target / _JOURNAL)
    _remove_empty(*(source / folder for folder in ("parts", *FOLDERS)), source)


def _remove_empty(*folders: Path) -> None:
    """Remove those of the directories that are empty, in this order."""
    for folder in folders:
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
