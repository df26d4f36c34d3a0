"""Files of a repo, fetched into the Hub's cache and hashed: the client checks only sizes."""

from collections.abc import Sequence
from pathlib import Path

from prefdata.hub.errors import HubError, hub_faults
from prefdata.hub.repo import Repo
from prefdata.store.commit import seal_file
from prefdata.store.manifest import OtherFile


def fetch_file(repo: Repo, name: str, revision: str | None) -> Path:
    """Fetch a file of a repo; return its path in the cache, in a directory named by the commit."""
    from huggingface_hub import hf_hub_download

    with hub_faults(repo.name, f"fetch {name}"):
        return Path(hf_hub_download(repo.name, name, repo_type=repo.kind, revision=revision))


def fetch_sealed(repo: Repo, files: Sequence[OtherFile], commit: str) -> Path:
    """Fetch files into the cache, check them against their hashes, and return their directory.

    Cached files are not fetched again. Raises HubError (E209) if other bytes arrived; they are
    removed from the cache, so that the next try fetches them again.
    """
    from huggingface_hub import snapshot_download

    with hub_faults(repo.name, "fetch its files"):
        names = [file.path for file in files]
        root = snapshot_download(
            repo.name, repo_type=repo.kind, revision=commit, allow_patterns=names
        )
    wrong = []
    for file in files:
        path = Path(root) / file.path
        if not path.is_file():
            problem = f"has no {file.path} at {commit[:12]}, but its record lists it"
            raise HubError("E209", repo.name, problem, "push the build again")
        if seal_file(path) != file.seal:
            forget(path)
            wrong.append(file.path)
    if wrong:
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        problem = f"sent {wrong[0]}{more} with other bytes than were shared at {commit[:12]}"
        raise HubError("E209", repo.name, problem, "run the same command again")
    return Path(root)


def forget(path: Path) -> None:
    """Remove a file from the cache, so that it is fetched again."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
