"""Builds by name: a directory, or a shared set, which is pulled once per commit."""

from collections.abc import Sequence
from pathlib import Path

from prefdata.comparison.compare import Comparison, compare_builds
from prefdata.hub.inputs import SCHEME, is_hub_name
from prefdata.progress import Progress
from prefdata.sharing.pull import find_set, pull, split_revision
from prefdata.sharing.push import Pushed, PushOptions, push
from prefdata.sharing.verify import Verified, verify_build, verify_set
from prefdata.store.reader import Build, open_build
from prefdata.store.verify import cache_folder


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
