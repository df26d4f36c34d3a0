"""Where a build grows: `.building/` in its folder, until every file can get its name at once.

Nothing stands under a final name before the whole build is there. A killed build leaves its files
and a journal of what it sealed; the next build with the same fingerprint takes up each file whose
size and sha256 are still as sealed, and makes the others again.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from prefdata.store.commit import (
    FileSeal,
    fsync_path,
    make_folder,
    seal_file,
    write_bytes,
)
from prefdata.store.manifest import NAME

FOLDER = ".building"
_JOURNAL = "journal.jsonl"
# What a build owns in its folder, and may replace there.
_OWNED_FOLDERS = ("tokens", "text", "rejected")


def write_staged(path: Path, write: Callable[[Path], object]) -> FileSeal:
    """Write a file, force it to the disk, and seal what is then read back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    fsync_path(path)
    return seal_file(path)


def stage_table(path: Path, table: pa.Table) -> FileSeal:
    """Write a table that only this build reads; a torn write is seen by its seal at a resume."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = memoryview(sink.getvalue())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return FileSeal(len(data), hashlib.sha256(data).hexdigest())


class Staging:
    """The growing files of one build, in a folder that this process holds the lock of."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out = out
        self.root = out / FOLDER
        self._journal = self.root / _JOURNAL
        self._entries = self._read_journal(fingerprint)
        if self._entries is None:
            self._start_anew(fingerprint)
            self._entries = {}

    def known(self, name: str) -> dict[str, Any] | None:
        """What the journal says of a step, if all its files are still as it sealed them."""
        assert self._entries is not None
        entry = self._entries.get(name)
        if entry is None or not all(self._is_whole(*file) for file in entry["files"]):
            return None
        return entry

    def record(self, name: str, files: dict[str, FileSeal], facts: dict[str, Any]) -> None:
        """Note that a step is done: its files, relative to the folder, and what it found."""
        seals = [[path, *seal] for path, seal in files.items()]
        line = orjson.dumps({"name": name, "files": seals, "facts": facts}, default=list)
        with self._journal.open("ab") as journal:
            journal.write(b"\n" + line)  # so a line cut by a kill spoils no other

    def commit(self, files: dict[str, FileSeal], manifest: bytes) -> None:
        """Give every file its name, then write the manifest, which makes them a build.

        A build that stood here before is gone from the moment its manifest is.
        """
        (self.out / NAME).unlink(missing_ok=True)
        self._remove_others(files)
        folders = {self.out}
        for name in files:
            staged, final = self.root / name, self.out / name
            make_folder(final.parent)
            folders.add(final.parent)
            if staged.exists():  # else it got its name before an earlier try was killed
                staged.replace(final)
        for folder in sorted(folders):
            fsync_path(folder)
        write_bytes(self.out / NAME, manifest)
        self.discard_at(self.out)

    def place_of(self, name: str) -> Path:
        """Where a file of the build is by now."""
        staged = self.root / name
        return staged if staged.exists() else self.out / name

    @staticmethod
    def discard_at(out: Path) -> None:
        """Remove what is left of any work in a folder."""
        shutil.rmtree(out / FOLDER, ignore_errors=True)

    def _is_whole(self, name: str, size: int, sha256: str) -> bool:
        for path in (self.root / name, self.out / name):
            if path.is_file() and path.stat().st_size == size:
                return seal_file(path) == FileSeal(size, sha256)
        return False

    def _read_journal(self, fingerprint: str) -> dict[str, dict[str, Any]] | None:
        try:
            first, *lines = self._journal.read_bytes().split(b"\n")
        except OSError:
            return None
        if first != fingerprint.encode():
            return None
        entries = {}
        for line in lines:
            try:
                entry = orjson.loads(line)
                entries[entry["name"]] = entry
            except (orjson.JSONDecodeError, TypeError, KeyError):  # cut by a kill
                continue
        return entries

    def _start_anew(self, fingerprint: str) -> None:
        self.discard_at(self.out)
        self.root.mkdir(parents=True)
        write_bytes(self._journal, fingerprint.encode())

    def _remove_others(self, files: dict[str, FileSeal]) -> None:
        """Files of an earlier build under names that this one does not use."""
        for folder in _OWNED_FOLDERS:
            for path in sorted((self.out / folder).glob("*")):
                if str(path.relative_to(self.out)) not in files:
                    path.unlink()
