"""Reference log-probs of a build, as `dpo-ref` writes them: `reference/NAME` with a manifest."""

from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from prefdata.errors import UsageError
from prefdata.store.canonical import own_hash
from prefdata.store.commit import FileDigest
from prefdata.store.reader import Build, Shard, is_inside
from prefdata.store.shards import REFERENCE, read_shard
from prefdata.store.verify import check_seal

FOLDER, MANIFEST, FORMAT = "reference", "manifest.json", "dpo-reference"
_AGAIN = "run `dpo-ref` again under another --name"


class StoredReference(NamedTuple):
    """Finished log-probs of one reference, by its name."""

    name: str
    folder: Path
    manifest: dict[str, Any]

    def read(self, shard: Shard) -> pa.Table:
        """Check the log-probs of a token shard against their hash, and memory-map them."""
        name = Path(shard.name).name
        seal = next((seal for seal in self.manifest["shards"] if seal["path"] == name), None)
        if seal is None:
            raise UsageError("E212", str(self.folder), f"has no log-probs of {name}", _AGAIN)
        path = self.folder / name
        if not is_inside(path, self.folder):
            raise UsageError("E212", str(path), "is a link that leads out of its directory", _AGAIN)
        check_seal(path, FileDigest(int(seal["bytes"]), str(seal["sha256"])), None)
        return read_shard(path, rows=shard.rows, schema=REFERENCE)


def find_references(build: Build) -> list[StoredReference]:
    """Return the finished log-probs of a build, by name; unfinished ones are skipped.

    Raises UsageError (E212) for a manifest that is damaged, or is of another build.
    """
    found = []
    for path in sorted((build.path / FOLDER).glob(f"*/{MANIFEST}")):
        manifest = read_reference(path.read_bytes(), str(path))
        own = manifest.get("content_hash")
        if own != build.content_hash if own else manifest["build_hash"] != build.manifest.hash:
            remedy = "move it away, and push again"
            raise UsageError("E212", str(path), "is of another build", remedy)
        found.append(StoredReference(path.parent.name, path.parent, manifest))
    return found


def read_reference(data: bytes, place: str) -> dict[str, Any]:
    """Parse the manifest of log-probs; raise UsageError (E212) if it is damaged."""
    try:
        manifest = orjson.loads(data)
        is_ours = manifest["format"] == FORMAT and manifest["hash"] == own_hash(manifest)
    except (orjson.JSONDecodeError, TypeError, KeyError):
        is_ours = False
    if not is_ours:
        raise UsageError("E212", place, "is not an intact manifest of reference log-probs", _AGAIN)
    return dict(manifest)
