"""`partial.json`: what of a reference pass is done, so that a run which dies goes on from there.

It is a manifest that lists shards, and pieces of the shard at hand: rows from its front that lie in
`SHARD.from-ROW` until the shard is whole. Each is listed once it is committed, with its seal.
"""

from pathlib import Path

import pyarrow as pa

from dpo.errors import MismatchError
from dpo.refstore import COLUMNS, ReferenceManifest, read_manifest
from prefdata.store.commit import commit_file, write_bytes
from prefdata.store.manifest import ShardSeal
from prefdata.store.reader import Shard
from prefdata.store.shards import read_shard, write_shard
from prefdata.store.verify import cache_folder, check_seal

_MARK = ".from-"


class Ledger:
    """What a folder holds of the log-probs that a manifest without shards describes.

    Raises MismatchError (T205) where it holds those of something else, and where a file is not as
    it was sealed.
    """

    def __init__(self, folder: Path, plain: ReferenceManifest) -> None:
        self.folder = folder
        self.done = plain.with_shards([])
        for path in (folder / "manifest.json", folder / "partial.json"):
            if not path.exists():
                continue
            before = read_manifest(path)
            if before.decides() != plain.decides():
                problem = "holds log-probs of another model, build or precision"
                remedy = "choose another --name, or delete it"
                raise MismatchError("T205", str(folder), problem, remedy)
            for seal in before.shards:
                check_seal(folder / seal.path, seal.seal, cache_folder())
            self.done = before
            return

    def holds(self, name: str) -> bool:
        """Whether the whole shard of that name is there."""
        return any(seal.path == name for seal in self.done.shards)

    def pieces(self, name: str) -> list[pa.Table]:
        """The rows of a shard that are done, from its front."""
        return [
            read_shard(self.folder / seal.path, rows=seal.rows, schema=COLUMNS)
            for seal in self.done.shards
            if seal.path.startswith(name + _MARK)
        ]

    def keep(self, name: str, shard: Shard, table: pa.Table, *, first: int) -> None:
        """Commit the rows of a shard from `first` on, until the shard is whole."""
        seal = self._commit(f"{name}{_MARK}{first:08d}", shard, table, tokens=0)
        self._write(self.done.with_shard(seal))

    def finish(self, name: str, shard: Shard, table: pa.Table) -> None:
        """Commit a whole shard, and let its pieces go."""
        seal = self._commit(name, shard, table, tokens=shard.tokens)
        whole = [kept for kept in self.done.shards if _MARK not in kept.path]
        self._write(self.done.with_shards([*whole, seal]))
        for piece in self.folder.glob(f"{name}{_MARK}*"):
            piece.unlink()

    def close(self) -> ReferenceManifest:
        """Commit the manifest, which says that all is there."""
        if not (self.folder / "manifest.json").exists():
            write_bytes(self.folder / "manifest.json", self.done.to_bytes())
        (self.folder / "partial.json").unlink(missing_ok=True)
        for piece in self.folder.glob(f"*{_MARK}*"):  # of a run that died between two lines above
            piece.unlink()
        return self.done

    def _commit(self, name: str, shard: Shard, table: pa.Table, *, tokens: int) -> ShardSeal:
        seal = commit_file(self.folder / name, lambda temporary: write_shard(temporary, table))
        return ShardSeal(
            path=name, split=shard.split, rows=len(table), tokens=tokens, **seal._asdict()
        )

    def _write(self, done: ReferenceManifest) -> None:
        write_bytes(self.folder / "partial.json", done.to_bytes())
        self.done = done
