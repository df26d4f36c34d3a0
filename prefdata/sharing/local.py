"""Builds by name: a directory, or a shared set, which is pulled once per commit.

`prefdata verify` rehashes every byte of either.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prefdata.comparison.compare import Comparison, compare_builds
from prefdata.errors import CodedError, UsageError
from prefdata.hub.inputs import SCHEME, is_hub_name
from prefdata.hub.repo import fetch_sealed
from prefdata.progress import Progress
from prefdata.sharing.pull import SharedSet, find_set, pull, split_revision
from prefdata.sharing.push import Pushed, PushOptions, push
from prefdata.sharing.references import StoredReference, find_references
from prefdata.store.manifest import Manifest, OtherFile, ShardSeal, read_manifest
from prefdata.store.reader import Build, is_inside, open_build
from prefdata.store.shards import read_shard
from prefdata.store.verify import cache_folder, check_seal


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


def pull_cached(name: str, progress: Progress | None = None) -> tuple[Path, str]:
    """Pull a shared set into the user's cache; return its directory, and its name with the commit.

    Offline, a set that was pulled or fetched before is used. Raises PrefdataError.
    """
    found = find_set(*split_revision(name.removeprefix(SCHEME)))
    folder = cache_folder() / "sets" / found.repo.name.replace("/", "--") / found.commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    pull(found, folder, progress=progress)
    return folder, f"{found.repo.name}@{found.commit}"


def open_named(name: str | Path) -> Build:
    """Open a build by its directory, or a shared set by its name."""
    return open_build(pull_cached(str(name))[0] if is_hub_name(str(name)) else name)


def pull_named(
    name: str,
    out: Path | str,
    *,
    splits: Sequence[str] = (),
    replace: bool = False,
    progress: Progress | None = None,
) -> Build:
    """Write a shared set, `ORG/NAME[@REV]`, as the build it was made from, or only some splits.

    Every row is checked against what was shared. Raises PrefdataError: E142 if another build is in
    `out`, unless `replace`; E209 if bytes differ from those that were shared.
    """
    found = find_set(*split_revision(name))._replace(splits=tuple(splits))
    return pull(found, Path(out), replace=replace, progress=progress)


def verify_named(name: str | Path) -> Verified:
    """Rehash every file of a build's directory, or of a shared set `ORG/NAME[@REV]`.

    `faults` lists what is missing or has changed. Raises PrefdataError.
    """
    if Path(name).exists():
        return verify_build(Path(name))
    if not is_hub_name(str(name)):
        remedy = "name a build's directory, or a shared set as ORG/NAME[@REV]"
        raise UsageError("E132", str(name), "does not exist", remedy)
    return verify_set(find_set(*split_revision(str(name))))


def diff_named(first: str | Path, second: str | Path) -> Comparison:
    """Compare two builds pair by pair, each a directory or a shared set. Raises PrefdataError."""
    names = (str(first), str(second))
    return compare_builds(open_named(first), open_named(second), names=names)


def push_references(folder: Path, pinned: str, *, public: bool) -> tuple[str, Pushed]:
    """Add the log-probs in a pulled set to the shared one; returns its name and what was sent.

    The set itself is not changed, nor are its refused rows. Raises HubError (E203) if its head is
    no longer the commit that was pulled.
    """
    name, commit = split_revision(pinned)
    options = PushOptions(
        public=public,
        with_rejected=open_build(folder).has_rejected,
        onto=commit,
        no_licence=True,  # the existing card states it, and is kept
        allow_secrets=True,
    )
    return name, push(folder, name, options)
