"""A trained model on the Hub: all of its files in one commit, and checked there."""

import hashlib
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id

from dpo.errors import TrainingError, UsageError
from prefdata.store.commit import seal_file

KEPT = {".gitattributes"}
_REMEDIES = {
    401: "log in with `hf auth login`, or set HF_TOKEN",
    403: "take a token that may write there",
    412: "somebody else has changed it; run the same command again",
    429: "wait, then run the same command again",
}


def check_login(repo: str) -> None:
    """Refuse a name or a token that cannot be used, before anything is computed.

    Raises UsageError (T173).
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError("T173", repo, "is no name of a repo", "write it as org/name") from error
    if repo.count("/") != 1:
        raise UsageError("T173", repo, "has no owner", "write it as org/name")
    try:
        HfApi().whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, httpx2.HTTPError) as error:
        problem = f"cannot be pushed to ({_said(error)})"
        raise UsageError("T173", repo, problem, _REMEDIES[401]) from error


def push_model(folder: Path, repo: str, *, public: bool) -> str:
    """Publish a model's folder; returns the address of the commit, the last one if none was needed.

    The files are uploaded first, then named by one commit on top of the one that was seen, so the
    repo holds the old model or the new one. Raises TrainingError (T310); the folder stays as it is.
    """
    api, files = HfApi(), sorted(path for path in folder.rglob("*") if path.is_file())
    additions = {file.relative_to(folder).as_posix(): file for file in files}
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        head = api.model_info(repo).sha
        gone = set(api.list_repo_files(repo, revision=head)) - additions.keys() - KEPT
        commit = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, file) for name, file in additions.items()),
                *(CommitOperationDelete(name) for name in sorted(gone)),
            ],
            commit_message="A model trained by dpo-train",
            parent_commit=head,
        )
        there = api.get_paths_info(repo, list(additions), revision=commit.oid)
    except (httpx2.HTTPError, OSError, RuntimeError) as caught:
        error = caught.__cause__ or caught  # uploads are wrapped in a RuntimeError
        status = getattr(getattr(error, "response", None), "status_code", 0)
        again = f"the model is in {folder}; run the same command again"
        problem = f"was not pushed to ({_said(error)})"
        raise TrainingError("T310", repo, problem, _REMEDIES.get(status, again)) from caught
    wrong = sorted(additions.keys() - {file.path for file in there if _is_alike(file, additions)})
    if wrong:
        problem = f"commit {commit.oid[:12]} holds other bytes than {folder} in {', '.join(wrong)}"
        raise TrainingError("T310", repo, problem, "do not use that commit; push again")
    return str(commit.commit_url)


def _is_alike(there: Any, here: dict[str, Path]) -> bool:
    """Whether the Hub's checksum of a file is that of ours: sha256, or git's for small ones."""
    file = here[there.path]
    if there.lfs is not None:
        return bool(there.lfs.sha256 == seal_file(file).sha256)
    data = file.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return bool(there.blob_id == git.hexdigest())


def _said(error: BaseException) -> str:
    """An error in one line, without the request's headers or address."""
    if isinstance(error, LocalTokenNotFoundError):
        return "no token was found"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
    return type(error).__name__
