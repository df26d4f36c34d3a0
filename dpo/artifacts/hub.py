"""Upload of a trained model to the Hub: files, settings and card in one verified commit.

`dpo-shared.json` lists the files that a push made, so that the next one removes only these.
"""

import tempfile
from pathlib import Path
from typing import Any

import orjson

from dpo.artifacts.summary import RunSummary
from dpo.errors import TrainingError, UsageError
from prefdata.errors import PrefdataError
from prefdata.errors import UsageError as PlaceError
from prefdata.hub.repo import (
    Remote,
    Repo,
    Target,
    commit_files,
    create_repo,
    fetch_file,
    look_at,
    require_not_public,
    require_ours,
)
from prefdata.hub.repo import check_login as check_hub_login
from prefdata.report.safe import yaml_text
from prefdata.sharing.card import find_licence, merge_card, parse_card
from prefdata.store.canonical import to_json
from prefdata.store.manifest import shared_name

RECORD, CARD, SETTINGS, RUN = "dpo-shared.json", "README.md", "train.yaml", "run.json"
_FORMAT = "dpo-shared"


def check_target(name: str, *, public: bool, replace: bool) -> None:
    """Check that a push can and may change a repo, before anything is computed.

    Raises UsageError (T173) for a name or a login that cannot be used, and PrefdataError: E205 for
    a repo with files that no push made, E206 for a public one.
    """
    repo = Repo(name, "model")
    try:
        check_hub_login(repo)
    except PlaceError as error:
        raise UsageError("T173", error.place, error.problem, error.remedy) from error
    remote = look_at(repo)
    require_not_public(repo, remote, public=public)
    require_ours(repo, remote, _own_files(repo, remote), replace=replace)


def push_model(
    folder: Path, name: str, summary: RunSummary, *, public: bool, replace: bool = False
) -> str:
    """Publish a model's directory; return the commit's address, or the head if none was needed.

    The files are uploaded first, then named by one commit on top of the known head, so the repo
    contains the old model or the new one. Raises TrainingError (T310); the directory is unchanged.
    """
    repo = Repo(name, "model")
    try:
        remote = look_at(repo)
        require_not_public(repo, remote, public=public)
        gone = require_ours(repo, remote, _own_files(repo, remote), replace=replace)
        if remote is None:
            create_repo(repo, public=public)
            remote = look_at(repo)
            assert remote is not None
        with tempfile.TemporaryDirectory(prefix="dpo-push-") as more:
            files = _files(folder, summary, repo, remote, Path(more))
            left = sorted(gone - files.keys())
            message = "A model trained by dpo-train"
            made = commit_files(Target(repo, remote), files, gone=left, message=message)
    except PrefdataError as error:
        problem = f"{error.problem} ({error.code})"
        remedy = f"{error.remedy}; the model is in {folder}"
        raise TrainingError("T310", error.place, problem, remedy) from error
    return f"{name} at {remote.head}" if made is None else str(made.url)


def _files(
    folder: Path, summary: RunSummary, repo: Repo, remote: Remote, more: Path
) -> dict[str, Path]:
    """Return the model's files, its run without local paths, its card, and their list.

    The card gets the licence, if it is known; people's own text in it is kept.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    files = {name: path for name, path in files.items() if path.is_file()}
    shared = shared_summary(summary)
    settings = shared.config.model_dump(mode="json", exclude_unset=True)
    licence = find_licence(summary.config.model)
    header, body = parse_card((folder / CARD).read_text(encoding="utf-8"))
    theirs = None
    if CARD in remote.digests:
        theirs = fetch_file(repo, CARD, remote.head).read_text(encoding="utf-8", errors="replace")
    known = ({"license": licence} if licence else {}) | header
    made = {
        SETTINGS: yaml_text(settings, sort_keys=False).encode(),
        RUN: to_json(shared.model_dump(mode="json")),
        CARD: merge_card(known, body.replace('"PATH"', f'"{repo.name}"'), theirs).encode(),
    }
    listed = {"format": _FORMAT, "format_version": 1, "files": sorted({*files, *made})}
    for name, content in (made | {RECORD: to_json(listed)}).items():
        (more / name).write_bytes(content)
        files[name] = more / name
    return files


def shared_summary(summary: RunSummary) -> RunSummary:
    """Return a run's summary with models, data and output named without their directories."""
    config = summary.config
    reference = config.reference
    if reference is not None and reference.model is not None:
        reference = reference.model_copy(update={"model": shared_name(reference.model)})
    changes: dict[str, Any] = {
        "model": shared_name(config.model),
        "data": Path(shared_name(str(config.data))),
        "out": Path(config.out.name),
        "reference": reference,
    }
    return summary.model_copy(update={"config": config.model_copy(update=changes)})


def _own_files(repo: Repo, remote: Remote | None) -> set[str]:
    """Return the files that an earlier push made; people's text in the card is always kept."""
    if remote is None or RECORD not in remote.digests:
        return {CARD}
    try:
        value = orjson.loads(fetch_file(repo, RECORD, remote.head).read_bytes())
        return {RECORD, CARD, *map(str, value["files"])}
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return {CARD}
