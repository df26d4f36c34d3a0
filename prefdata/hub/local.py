"""A shared set by its name, as a build on this machine: pulled once for each commit."""

import re
from pathlib import Path

from prefdata.hub.pull import find_set, pull, split_revision
from prefdata.progress import Progress
from prefdata.store.verify import cache_folder

SCHEME = "hf://datasets/"
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[^\s@]+)?", re.ASCII)


def is_set_name(name: str) -> bool:
    """Return whether `ORG/NAME[@REV]` names a set on the Hub, and no path of this machine.

    A path whose first directory is here is a path, though the rest of it may be missing.
    """
    if name.startswith(SCHEME):
        return True
    return _NAME.fullmatch(name) is not None and not Path(Path(name).parts[0]).exists()


def pull_cached(name: str, progress: Progress | None = None) -> tuple[Path, str]:
    """Return the build of a shared set in the user's cache, and its name with the exact commit.

    Offline, what was pulled or fetched before is found again. Raises PrefdataError.
    """
    found = find_set(*split_revision(name.removeprefix(SCHEME)))
    folder = cache_folder() / "sets" / found.repo.name.replace("/", "--") / found.commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    pull(found, folder, progress=progress)
    return folder, f"{found.repo.name}@{found.commit}"
