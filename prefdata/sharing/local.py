"""A shared set by its name, as a build on this machine: pulled once for each commit."""

from pathlib import Path

from prefdata.hub.inputs import SCHEME, is_hub_name
from prefdata.progress import Progress
from prefdata.sharing.pull import find_set, pull, split_revision
from prefdata.sharing.push import Pushed, PushOptions, push
from prefdata.store.reader import Build, open_build
from prefdata.store.verify import cache_folder


def pull_cached(name: str, progress: Progress | None = None) -> tuple[Path, str]:
    """Return the build of a shared set in the user's cache, and its name with the exact commit.

    Offline, what was pulled or fetched before is found again. Raises PrefdataError.
    """
    found = find_set(*split_revision(name.removeprefix(SCHEME)))
    folder = cache_folder() / "sets" / found.repo.name.replace("/", "--") / found.commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    pull(found, folder, progress=progress)
    return folder, f"{found.repo.name}@{found.commit}"


def open_named(name: str) -> Build:
    """Open a build by its directory, or a shared set by its name."""
    return open_build(pull_cached(name)[0] if is_hub_name(name) else name)


def push_references(folder: Path, pinned: str, *, public: bool) -> tuple[str, Pushed]:
    """Add the log-probs in a pulled set to the shared one; returns its name and what was sent.

    The set itself stays as it was shared, refused rows too. Raises HubError (E203) where its head
    is no more the commit that was pulled.
    """
    name, commit = split_revision(pinned)
    options = PushOptions(
        public=public,
        with_rejected=open_build(folder).has_rejected,
        onto=commit,
        no_licence=True,  # the card says it, and stays
        allow_secrets=True,
    )
    return name, push(folder, name, options)
