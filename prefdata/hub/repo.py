"""A repo on the Hub: read, changed by one commit on top of the head that was read, verified.

Fetched files are in the Hub's cache and are hashed, because the client checks only sizes.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prefdata.errors import UsageError
from prefdata.hub.errors import HubError, hub_faults
from prefdata.store.commit import seal_file, sha256_file
from prefdata.store.manifest import OtherFile

Kind = Literal["dataset", "model"]
HUBS_OWN = frozenset({".gitattributes"})
"""Files that the Hub creates in a new repo."""


_MOST_NAMED = 5


class Repo(NamedTuple):
    """Name of a repo, `org/name`, and its kind."""

    name: str
    kind: Kind = "dataset"


class Remote(NamedTuple):
    """Contents of a repo at one commit."""

    head: str
    """The commit, 40 hex digits."""
    is_private: bool
    digests: dict[str, str]
    """Digest of each file: sha256 of a large one, git's checksum of a small one."""


def check_name(repo: Repo) -> None:
    """Raise E200 unless the name is `org/name`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo.name)
    except HFValidationError as error:
        problem = "is not the name of a repo"
        raise UsageError("E200", repo.name, problem, "write org/name") from error
    if repo.name.count("/") != 1:
        raise UsageError("E200", repo.name, "has no owner", "write it as org/name")


def check_login(repo: Repo) -> None:
    """Check the name and the login; raise a coded error before anything is computed."""
    from huggingface_hub import HfApi

    check_name(repo)
    with hub_faults(repo.name, "log in"):
        HfApi().whoami()


def look_at(repo: Repo, revision: str | None = None) -> Remote | None:
    """Return the contents of a repo; None if the repo or the revision does not exist."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with hub_faults(repo.name, "look at it"):
        try:
            about = HfApi().repo_info(repo.name, repo_type=repo.kind, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
        entries = HfApi().list_repo_tree(
            repo.name, recursive=True, revision=about.sha, repo_type=repo.kind
        )
        digests = {one.path: _digest_of(one) for one in entries if hasattr(one, "blob_id")}
    return Remote(str(about.sha), bool(about.private), digests)


def require_not_public(repo: Repo, remote: Remote | None, *, public: bool) -> None:
    """Raise E206 for a public repo unless `public` is set."""
    if remote is not None and not remote.is_private and not public:
        problem = "is public, so everybody can read what is pushed there"
        raise UsageError("E206", repo.name, problem, "pass --public, or name another repo")


def require_ours(
    repo: Repo, remote: Remote | None, ours: Collection[str], *, replace: bool
) -> set[str]:
    """Return the files of a repo that a push may remove: those of an earlier push.

    Raises E205 for files that no push made, unless `replace` is set.
    """
    if remote is None:
        return set()
    foreign = sorted(remote.digests.keys() - ours - HUBS_OWN)
    if foreign and not replace:
        shown = ", ".join(foreign[:_MOST_NAMED]) + (" …" if len(foreign) > _MOST_NAMED else "")
        noun = "file" if len(foreign) == 1 else "files"
        problem = f"has {len(foreign):,} {noun} that no push made: {shown}"
        remedy = "name another repo, or remove them from it with --replace"
        raise UsageError("E205", repo.name, problem, remedy)
    return remote.digests.keys() - HUBS_OWN


def create_repo(repo: Repo, *, public: bool) -> None:
    """Create a repo if it does not exist; an existing one is not changed."""
    from huggingface_hub import HfApi

    with hub_faults(repo.name, "create it"):
        HfApi().create_repo(repo.name, repo_type=repo.kind, private=not public, exist_ok=True)


def create_branch(repo: Repo, branch: str) -> None:
    """Create a branch at the head of the main one, if it does not exist."""
    from huggingface_hub import HfApi

    with hub_faults(repo.name, f"create the branch {branch}"):
        HfApi().create_branch(repo.name, branch=branch, repo_type=repo.kind, exist_ok=True)


def tag_commit(repo: Repo, tag: str, commit: str) -> None:
    """Tag a commit; an existing tag is not moved."""
    from huggingface_hub import HfApi

    with hub_faults(repo.name, f"tag it {tag}"):
        HfApi().create_tag(repo.name, tag=tag, revision=commit, repo_type=repo.kind, exist_ok=True)


def changed_files(remote: Remote, files: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files that a repo does not have, or has with other bytes."""
    return {name: path for name, path in files.items() if not _holds(remote, name, path)}


class Commit(NamedTuple):
    """A commit and its web address."""

    oid: str
    url: str | None


class Target(NamedTuple):
    """Destination of a commit: a branch, on top of the head that was read."""

    repo: Repo
    remote: Remote
    branch: str | None = None
    create_pr: bool = False


def commit_files(
    target: Target, files: Mapping[str, Path], *, gone: Collection[str] = (), message: str
) -> Commit | None:
    """Upload the files that differ, in one commit on top of the head that was read.

    Returns None if nothing differs. The repo then has the old files or the new ones, never a
    mixture. Raises HubError: E203 if somebody else committed, E209 if other bytes arrived.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    repo, remote, branch, create_pr = target
    changed = changed_files(remote, files)
    if not changed and not gone:
        return None
    with hub_faults(repo.name, "push to it"):
        made = HfApi().create_commit(
            repo.name,
            [
                *(CommitOperationAdd(name, path) for name, path in changed.items()),
                *(CommitOperationDelete(name) for name in sorted(gone)),
            ],
            commit_message=message,
            repo_type=repo.kind,
            revision=branch,
            create_pr=create_pr,
            parent_commit=remote.head,
        )
        there = HfApi().get_paths_info(
            repo.name, list(changed), revision=made.oid, repo_type=repo.kind
        )
    arrived = Remote(made.oid, remote.is_private, {one.path: _digest_of(one) for one in there})
    wrong = sorted(changed_files(arrived, changed))
    if wrong:
        problem = f"commit {made.oid[:12]} holds other bytes than were sent in {', '.join(wrong)}"
        raise HubError("E209", repo.name, problem, "do not use that commit; push again")
    return Commit(made.oid, str(made.pr_url or made.commit_url))


def _holds(remote: Remote, name: str, path: Path) -> bool:
    """Return whether a repo has a file with these bytes."""
    digest = remote.digests.get(name)
    if digest is None:
        return False
    if len(digest) == 64:
        return digest == sha256_file(path)
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return digest == blob.hexdigest()


def _digest_of(entry: Any) -> str:
    return str(entry.lfs.sha256 if entry.lfs is not None else entry.blob_id)


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
