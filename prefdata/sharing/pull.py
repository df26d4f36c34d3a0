"""`prefdata pull`: a shared set as its build, checked by hash, with its reference log-probs."""

import shutil
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import NamedTuple

import orjson

from prefdata.errors import UsageError
from prefdata.hub.errors import HubError
from prefdata.hub.repo import Repo, check_name, fetch_file, fetch_sealed, forget
from prefdata.progress import Progress, Silent
from prefdata.report.card import write_card
from prefdata.report.model import Report
from prefdata.sharing.record import NAME, Record, parquet_name, parse_record
from prefdata.sharing.references import FOLDER, read_reference
from prefdata.sharing.references import MANIFEST as REFERENCE_MANIFEST
from prefdata.sharing.tables import read_parquet
from prefdata.stages.output import CARD, commit_build, old_build, open_place
from prefdata.store.canonical import own_hash, to_json
from prefdata.store.commit import FileDigest, commit_file, lock_folder, make_folder, write_bytes
from prefdata.store.content import hash_content
from prefdata.store.manifest import NAME as MANIFEST
from prefdata.store.manifest import Manifest, read_manifest
from prefdata.store.ownership import require_writable_name
from prefdata.store.reader import Build, open_build
from prefdata.store.shards import REFERENCE, TOKENS, read_shard, write_shard
from prefdata.store.staging import PAGE, Staging, stage_shard, write_staged


class SharedSet(NamedTuple):
    """A shared set and its record."""

    repo: Repo
    commit: str
    """40 hex digits."""
    record: Record
    splits: tuple[str, ...] = ()
    """Splits to pull; all if empty."""

    @property
    def place(self) -> str:
        return f"{self.repo.name}@{self.commit[:12]}"


def split_revision(name: str) -> tuple[str, str | None]:
    """Return a name and its revision.

    >>> split_revision("org/set@v1"), split_revision("org/set")
    (('org/set', 'v1'), ('org/set', None))
    """
    repo, _, revision = name.partition("@")
    return repo, revision or None


def find_set(name: str, revision: str | None = None) -> SharedSet:
    """Find a shared set by `ORG/NAME` and a branch, tag or commit; offline, in the cache.

    Raises PrefdataError: E201 for a name or revision that does not exist, E210 for a repo that no
    `prefdata push` made.
    """
    repo = Repo(name)
    check_name(repo)
    try:
        path = fetch_file(repo, NAME, revision)
    except UsageError as error:
        if error.code == "E201" and "such file" in error.problem:
            problem = "is not a set that `prefdata push` shared"
            remedy = f"read its rows with `prefdata build {name} --tokenizer NAME -o FOLDER`"
            raise UsageError("E210", name, problem, remedy) from error
        raise
    try:
        return SharedSet(repo, path.parent.name, parse_record(path.read_bytes(), name))
    except UsageError:
        forget(path)
        raise


def pull(
    found: SharedSet,
    out: Path,
    *,
    replace: bool = False,
    progress: Progress | None = None,
) -> Build:
    """Write a shared set as the build it was made from, with all its references.

    A subset of splits is a build of its own, whose manifest names the whole set. Cached files are
    not fetched again. Another build in the directory is refused (E142) unless `replace`; other
    files are never touched. Raises PrefdataError.
    """
    require_writable_name(out)
    if is_here(found, out):
        return open_build(out)
    root, manifest = _fetch(found)
    open_place(out)
    with lock_folder(out):
        old = old_build(out)
        if old is not None and not replace:
            _require_same_build(out, old, manifest)
        if old is None or old.hash != manifest.hash:
            manifest = _write_build(found, manifest, root, out, old, progress or Silent())
        for name in found.record.references:
            _write_reference(found, manifest, name, root, out)
    return open_build(out)


def is_here(found: SharedSet, out: Path) -> bool:
    """Return whether a directory has all that a pull writes: the build and every reference."""
    if not (out / MANIFEST).is_file():
        return False
    names = found.record.references
    has_references = all((out / FOLDER / name / REFERENCE_MANIFEST).is_file() for name in names)
    there, record = read_manifest(out), found.record
    is_same = record.manifest_hash == there.hash or record.content_hash == there.content_hash
    is_part = there.part_of == record.manifest_hash and set(there.splits) == set(found.splits)
    return has_references and (is_same or is_part)


def _fetch(found: SharedSet) -> tuple[Path, Manifest]:
    """Fetch the files of a build; return their directory in the cache, and the manifest to write.

    With references, their config has the tokens too, so the config of tokens is not fetched.
    """
    record = found.record
    sealed = [file for file in record.files if file.path == MANIFEST]
    whole = read_manifest(fetch_sealed(found.repo, sealed, found.commit))
    if whole.hash != record.manifest_hash:
        raise UsageError("E210", found.place, "has the manifest of another build", "push it again")
    again = f"{record.tokens}/" if record.references else None
    files = [file for file in record.files if again is None or not file.path.startswith(again)]
    if not found.splits:
        return fetch_sealed(found.repo, files, found.commit), whole
    for split in found.splits:
        if split not in whole.splits:
            remedy = f"it has {', '.join(whole.splits)}"
            raise UsageError("E213", found.place, f"has no split {split}", remedy)
    files = [file for file in files if _is_of(file.path, whole, found.splits)]
    root = fetch_sealed(found.repo, files, found.commit)
    return root, _part_of(whole, found.splits)


def _is_of(path: str, whole: Manifest, splits: Collection[str]) -> bool:
    """Return whether a file is of `splits` or of no split; names of splits have no `-`."""
    split, dash, _ = Path(path).name.partition("-")
    return split in splits or not dash or split not in whole.splits


def _part_of(whole: Manifest, splits: Collection[str]) -> Manifest:
    """Return the manifest of some splits of a set, without the content hash of these rows."""
    part = {
        "part_of": whole.hash,
        "content_hash": "",
        "shards": [shard for shard in whole.shards if shard.split in splits],
        "splits": {name: one for name, one in whole.splits.items() if name in splits},
        "files": [file for file in whole.files if _is_of(file.path, whole, splits)],
    }
    return whole.model_copy(update=part)


def _require_same_build(out: Path, old: Manifest, new: Manifest) -> None:
    """Raise E142 if a directory holds another build, or splits that would be removed."""
    remedy = "name another output directory, or replace that build with --replace"
    if old.fingerprint != new.fingerprint:
        problem = f"holds another build ({old.fingerprint}; this one is {new.fingerprint})"
        raise UsageError("E142", str(out), problem, remedy)
    more = sorted(old.splits.keys() - new.splits.keys())
    if more:
        problem = f"holds the split {more[0]} of this set, which is not asked for"
        raise UsageError("E142", str(out), problem, remedy)


def _write_build(
    found: SharedSet,
    manifest: Manifest,
    root: Path,
    out: Path,
    old: Manifest | None,
    progress: Progress,
) -> Manifest:
    staging = Staging(out, manifest.fingerprint)
    folder = next(iter(found.record.references.values()), found.record.tokens)
    seals: dict[str, FileDigest] = {}
    with progress.bar("writing", sum(shard.rows for shard in manifest.shards)) as advance:
        for shard in manifest.shards:
            table = read_parquet(root / parquet_name(folder, shard.path), TOKENS)
            seals[shard.path] = stage_shard(staging.root / shard.path, table, rows=shard.rows)
            advance(shard.rows)
    sealed = (root / MANIFEST).read_bytes()  # may be of an earlier version with fewer fields
    written = _as_written(found, manifest, seals, staging.root)
    if written is not manifest or manifest.part_of:
        manifest, sealed = written, written.to_bytes()
    shared = {file.path for file in found.record.files}
    for path in {*(file.path for file in manifest.files), PAGE} & shared:
        copy = partial(shutil.copyfile, root / path)
        seals[path] = write_staged(staging.root / path, copy)
    report = Report.model_validate_json((root / "report.json").read_bytes())
    text = write_card(report, name=out.name).encode()
    seals[CARD] = write_staged(staging.root / CARD, lambda path: path.write_bytes(text))
    commit_build(staging, seals, sealed, old)
    return manifest


def _as_written(
    found: SharedSet, manifest: Manifest, seals: dict[str, FileDigest], root: Path
) -> Manifest:
    """Return the manifest of the shards as they were written here.

    Another version of Arrow may write other bytes for the same rows. Then the content hash must
    match, and the manifest seals the bytes that were written.
    """
    is_as_shared = all(seals[shard.path] == shard.seal for shard in manifest.shards)
    if is_as_shared and not manifest.part_of:
        return manifest
    content = hash_content(
        ((one.split, read_shard(root / one.path, rows=one.rows)) for one in manifest.shards),
        tokenizer_sha256=manifest.tokenizer.tokenizer_sha256,
    )
    if not manifest.part_of and content != found.record.content_hash:
        raise HubError("E209", found.place, "holds other rows than were shared", "push it again")
    shards = [one.model_copy(update=seals[one.path]._asdict()) for one in manifest.shards]
    return manifest.model_copy(update={"shards": shards, "content_hash": content}).sealed()


def _write_reference(
    found: SharedSet, manifest: Manifest, name: str, root: Path, out: Path
) -> None:
    """Write the log-probs of one name, their manifest last; existing log-probs are kept."""
    shared = root / FOLDER / name / REFERENCE_MANIFEST
    value = read_reference(shared.read_bytes(), f"{found.place}/{FOLDER}/{name}")
    folder = out / FOLDER / name
    if manifest.part_of:
        value |= {"build_hash": manifest.hash, "content_hash": manifest.content_hash}
    if (folder / REFERENCE_MANIFEST).is_file():
        there = orjson.loads((folder / REFERENCE_MANIFEST).read_bytes())
        if there.get("weights_sha256") != value["weights_sha256"]:
            problem = "holds log-probs of another model under the name of a shared one"
            raise UsageError("E171", str(folder), problem, "move it away, and pull again")
        if there.get("content_hash") == value.get("content_hash"):
            return
    make_folder(folder)
    seals = {seal["path"]: seal for seal in value["shards"]}
    for shard in manifest.shards:
        source = root / parquet_name(found.record.references[name], shard.path)
        path = folder / Path(shard.path).name
        seal = commit_file(path, partial(write_shard, table=read_parquet(source, REFERENCE)))
        seals[path.name] = {**seals[path.name], **seal._asdict()}
    here = [Path(shard.path).name for shard in manifest.shards]
    value["shards"] = [seal for name, seal in seals.items() if name in here]
    value["hash"] = own_hash(value)
    write_bytes(folder / REFERENCE_MANIFEST, to_json(value))
