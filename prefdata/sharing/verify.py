"""`prefdata verify`: every byte of a build or of a shared set, rehashed."""

from pathlib import Path
from typing import NamedTuple

from prefdata.errors import CodedError
from prefdata.hub.fetch import fetch_sealed
from prefdata.sharing.pull import SharedSet
from prefdata.sharing.references import StoredReference, find_references
from prefdata.store.manifest import Manifest, OtherFile, ShardSeal, read_manifest
from prefdata.store.reader import Build, is_inside
from prefdata.store.shards import read_shard
from prefdata.store.verify import check_seal


class Verified(NamedTuple):
    """Result of a verification."""

    num_files: int
    """Number of files that match their hashes."""
    faults: list[str]
    """One line for each file that does not match."""
    absent: list[str]
    """Files with refused rows that are not here, since they were not shared."""


def verify_build(folder: Path) -> Verified:
    """Rehash each file of a build and of its reference log-probs.

    Raises UsageError for a directory without an intact manifest.
    """
    manifest = read_manifest(folder)
    found = Verified(1, [], [])
    shards = {shard.path for shard in manifest.shards}
    entries: list[ShardSeal | OtherFile] = [*manifest.shards, *manifest.files]
    for entry in entries:
        path = folder / entry.path
        if entry.path.startswith("rejected/") and not path.exists():
            found.absent.append(entry.path)
            continue
        try:
            if is_inside(path, folder):
                check_seal(path, entry.seal, None)
            if entry.path in shards:
                read_shard(path, rows=entry.rows or 0)
            found = found._replace(num_files=found.num_files + 1)
        except CodedError as error:
            found.faults.append(str(error))
    return found if found.faults else _with_references(found, folder, manifest)


def _with_references(found: Verified, folder: Path, manifest: Manifest) -> Verified:
    build = Build(folder, manifest)
    try:
        references: list[StoredReference] = find_references(build)
        for one in references:
            for split in build.splits:
                for shard in build.shards(split):
                    one.read(shard)
                    found = found._replace(num_files=found.num_files + 1)
    except CodedError as error:
        found.faults.append(str(error))
    return found


def verify_set(found: SharedSet) -> Verified:
    """Fetch each file of a shared set and hash it.

    Raises HubError (E209) if a file differs from what was shared.
    """
    fetch_sealed(found.repo, found.record.files, found.commit)
    return Verified(len(found.record.files) + 1, [], [])
