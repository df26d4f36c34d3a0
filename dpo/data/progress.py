"""`partial.json`: progress of a reference pass, so that an interrupted run continues from there.

It is a manifest that lists finished shards and pieces of the current one: its first rows, in files
`SHARD.from-ROW` until the shard is complete. Each is listed once it is committed, with its seal.
"""

import glob
import os
import re
from pathlib import Path

import pyarrow as pa

from dpo.data.reference_folder import MANIFEST, PARTIAL, PIECE
from dpo.data.reference_store import ReferenceManifest, read_manifest
from dpo.errors import MismatchError
from prefdata.errors import UsageError as OutputError
from prefdata.store.commit import commit_file, write_bytes
from prefdata.store.manifest import ShardSeal
from prefdata.store.reader import Shard
from prefdata.store.shards import REFERENCE, read_shard, write_shard
from prefdata.store.verify import check_seal

_PIECE = re.compile(r"\.from-\d{8}")
_LATER = "choose another --name, or move it away"


class Ledger:
    """Log-probs in a directory so far, of those that a manifest without shards describes.

    Raises MismatchError (T205) if it contains others, and an error if a file differs from its seal.
    """

    def __init__(self, folder: Path, plain: ReferenceManifest) -> None:
        self.folder = folder
        self.done = plain.with_shards([])
        if (path := _begun(folder)) is not None:
            before = read_manifest(path)
            if not before.decides_as(plain):
                problem = "contains log-probs of another model, build or precision"
                raise MismatchError("T205", str(folder), problem, "choose another --name")
            _check_names(before, path)
            for seal in before.shards:
                check_seal(folder / seal.path, seal.seal, None)
            self.done = before
        self._require_free()
        if not (folder / MANIFEST).exists():
            self._write(self.done)  # the first file: it marks the directory as ours

    @staticmethod
    def before(folder: Path) -> ReferenceManifest | None:
        """Return the manifest of an earlier run in a directory, finished or not."""
        path = _begun(folder)
        return None if path is None else read_manifest(path)

    def rows_of(self, name: str) -> int | None:
        """Return the number of finished rows of a shard; None if it is complete."""
        if any(seal.path == name for seal in self.done.shards):
            return None
        return sum(s.rows for s in self.done.shards if s.path.startswith(name + PIECE))

    def pieces(self, name: str) -> list[pa.Table]:
        """Return the finished rows of a shard, from its first."""
        return [
            read_shard(self.folder / seal.path, rows=seal.rows, schema=REFERENCE)
            for seal in self.done.shards
            if seal.path.startswith(name + PIECE)
        ]

    def keep(self, name: str, shard: Shard, table: pa.Table, *, first: int) -> None:
        """Commit the rows of a shard from `first` on, as a piece until the shard is complete."""
        seal = self._commit(f"{name}{PIECE}{first:08d}", shard, table, tokens=0)
        self._write(self.done.with_shards([*self.done.shards, seal]))

    def finish(self, name: str, shard: Shard, table: pa.Table) -> None:
        """Commit a complete shard, and remove its pieces."""
        seal = self._commit(name, shard, table, tokens=shard.tokens)
        whole = [kept for kept in self.done.shards if PIECE not in kept.path]
        self._write(self.done.with_shards([*whole, seal]))
        self._remove_pieces(name)

    def close(self) -> ReferenceManifest:
        """Commit the manifest, which marks the log-probs as complete."""
        if not (self.folder / MANIFEST).exists():
            write_bytes(self.folder / MANIFEST, self.done.to_bytes())
        (self.folder / PARTIAL).unlink(missing_ok=True)
        for path in self.done.token_shards:  # of a run that died during `finish`
            self._remove_pieces(Path(path).name)
        return self.done

    def _remove_pieces(self, name: str) -> None:
        for piece in self.folder.glob(f"{glob.escape(name)}{PIECE}*"):
            if _PIECE.fullmatch(piece.name.removeprefix(name)) and not piece.is_dir():
                piece.unlink()

    def _require_free(self) -> None:
        """Raise E171 if a file with a shard's name was not written by dpo-ref."""
        listed = {seal.path for seal in self.done.shards}
        for path in (self.folder / Path(name).name for name in self.done.token_shards):
            if os.path.lexists(path) and path.name not in listed and not _is_logps(path):
                raise OutputError("E171", str(path), "was not written by dpo-ref", _LATER)

    def _commit(self, name: str, shard: Shard, table: pa.Table, *, tokens: int) -> ShardSeal:
        seal = commit_file(self.folder / name, lambda temporary: write_shard(temporary, table))
        return ShardSeal(
            path=name, split=shard.split, rows=len(table), tokens=tokens, **seal._asdict()
        )

    def _write(self, done: ReferenceManifest) -> None:
        write_bytes(self.folder / PARTIAL, done.to_bytes())
        self.done = done


def _begun(folder: Path) -> Path | None:
    return next((p for p in (folder / MANIFEST, folder / PARTIAL) if p.exists()), None)


def _check_names(manifest: ReferenceManifest, path: Path) -> None:
    """Refuse a list (T163) with names other than token shards and pieces of them."""
    names = {Path(name).name for name in manifest.token_shards}
    for seal in manifest.shards:
        name, _, first = seal.path.partition(PIECE)
        if name not in names or (first and not _PIECE.fullmatch(PIECE + first)):
            problem = f"lists {seal.path!a}, which is not a file of these log-probs"
            raise MismatchError("T163", str(path), problem, _LATER)


def _is_logps(path: Path) -> bool:
    """Return whether a file is complete log-probs: a run that dies before listing it leaves one."""
    try:
        with pa.memory_map(str(path)) as source:
            return bool(pa.ipc.open_file(source).schema.equals(REFERENCE))
    except (OSError, pa.ArrowInvalid):
        return False
