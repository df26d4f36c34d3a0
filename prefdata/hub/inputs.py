"""Sets of the Hub as inputs: the files of a name, at an exact commit, verified.

    org/name                                  all files of its one config, its splits kept
    org/name@v1                               the same at a branch, tag or commit
    hf://datasets/org/name@v1/config:split    one config and one split
    hf://datasets/org/name/data/rows.jsonl    one file

`datasets` assigns files to splits, by the repo's card or by the files' names.
"""

import re
from pathlib import Path
from typing import NamedTuple

from prefdata.errors import UsageError
from prefdata.hub.errors import HubError, hub_faults
from prefdata.hub.repo import Remote, Repo, changed_files, check_name, fetch_file, forget, look_at
from prefdata.hub.urls import fetch_url, is_url, url_of
from prefdata.records.sources import DATA_ENDINGS, Inputs, Source, as_sources
from prefdata.records.split_names import AUTO, kind_of

SCHEME = "hf://datasets/"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^\s@:/]+))?", re.ASCII)
_URL = re.compile(
    _NAME.pattern + r"(?:/(?P<rest>[^\s:]*[^\s:/]))?(?::(?P<split>[\w.]+))?", re.ASCII
)
_CACHED = re.compile(
    r"/datasets--(?P<org>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/(?P<path>.+)"
)
ROWS_FOLDER = "prefdata-rows-"
"""Start of the name of a temporary directory for rows that are not in files."""


class Named(NamedTuple):
    """Parsed name of a set of the Hub."""

    repo: str
    revision: str | None
    rest: str | None
    """A config, or a file."""
    split: str | None


def is_hub_name(name: str) -> bool:
    """Return whether a name is a set of the Hub.

    A name with the ending of a data file is a path; so is one whose first directory exists here.
    """
    if name.startswith(SCHEME):
        return True
    if _NAME.fullmatch(name) is None or name.lower().endswith((*DATA_ENDINGS, ".txt")):
        return False
    return not Path(Path(name).parts[0]).exists()


def origin_of(path: Path) -> str | None:
    """Return the name in outputs of a file that is not the user's own; None for other files.

    For a file in the Hub's cache it is the URL with its exact commit, for a fetched file its URL.

    >>> origin_of(Path("/c/hub/datasets--org--set/snapshots/" + "0" * 40 + "/data/a.jsonl"))
    'hf://datasets/org/set@0000000000000000000000000000000000000000/data/a.jsonl'
    """
    if path.parent.name.startswith(ROWS_FOLDER):
        return path.name
    found = _CACHED.search(str(path))
    if found is None:
        return url_of(path)
    return f"{SCHEME}{found['org']}/{found['name']}@{found['commit']}/{found['path']}"


def fetch_inputs(inputs: Inputs | str | Source) -> list[Source]:
    """Return inputs as sources on this machine: sets of the Hub and URLs are fetched.

    A set with several splits keeps them. Raises PrefdataError: E201 if there is no such set, E213
    if the name must choose a config or a split, E215 and E216 for URLs.
    """
    return [one for source in as_sources(inputs) for one in _fetch_source(source)]


def _fetch_source(source: Source) -> list[Source]:
    if is_url(source.path) and not source.path.startswith(SCHEME):
        return [source.at(path) for path in fetch_url(source.path)]
    if not is_hub_name(source.path):
        return [source]
    splits = _fetch(source.path)
    if len(splits) == 1:
        return [source.at(path) for paths in splits.values() for path in paths]
    if source.given is not None:
        problem = f"has the splits {', '.join(splits)}, but is given as one split"
        remedy = f"name one of them: {SCHEME}{_parse(source.path).repo}:{next(iter(splits))}"
        raise UsageError("E213", source.path, problem, remedy)
    return [source.at(path, split) for split, paths in splits.items() for path in paths]


def _parse(name: str) -> Named:
    found = _URL.fullmatch(name.removeprefix(SCHEME))
    if found is None:
        remedy = f"write {SCHEME}ORG/NAME[@REVISION][/CONFIG][:SPLIT]"
        raise UsageError("E213", name, "is not the name of a set", remedy)
    return Named(found["repo"], found["revision"], found["rest"], found["split"])


def _fetch(name: str) -> dict[str, list[str]]:
    """Fetch a set and return its cached files by split, each with the Hub's checksum."""
    asked = _parse(name)
    repo = Repo(asked.repo)
    check_name(repo)
    try:
        remote = look_at(repo, asked.revision)
    except HubError as error:
        problem = f"is not a path here; as a set on the Hub it {error.problem}"
        raise HubError(error.code, name, problem, error.remedy) from error
    if remote is None:
        problem = "is not a path here, and not on the Hub, or this login cannot see it"
        remedy = "check the name and the revision; `hf auth login` for a private one"
        raise UsageError("E201", name, problem, remedy)
    if asked.rest in remote.digests:
        return {AUTO: [_fetch_checked(repo, remote, str(asked.rest))]}
    splits = _files_by_split(name, asked, remote)
    if asked.split is not None:
        if asked.split not in splits:
            remedy = f"it has {', '.join(splits)}"
            raise UsageError("E213", name, f"has no split {asked.split}", remedy)
        splits = {asked.split: splits[asked.split]}
    named = _by_kind(name, asked, list(splits)) if len(splits) > 1 else {one: one for one in splits}
    return {
        named[split]: [_fetch_checked(repo, remote, path) for path in paths]
        for split, paths in splits.items()
    }


def _files_by_split(name: str, asked: Named, remote: Remote) -> dict[str, list[str]]:
    """Return the data files of each split as `datasets` finds them, as paths in the repo."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    start = f"{SCHEME}{asked.repo}@{remote.head}/"
    with hub_faults(asked.repo, "read its card and its list of files"):
        try:
            builder = load_dataset_builder(asked.repo, asked.rest, revision=remote.head)
        except (ValueError, DatasetNotFoundError) as error:
            said = " ".join(str(error).split())[:300]
            remedy = f"write {SCHEME}{asked.repo}/CONFIG, or name a file of it"
            raise UsageError("E213", name, f"cannot be read: {said}", remedy) from error
    files = builder.config.data_files or {}
    found = {
        str(split): [str(url).removeprefix(start) for url in urls] for split, urls in files.items()
    }
    if not any(found.values()):
        raise UsageError("E213", name, "holds no data files", f"name one: {start}FILE")
    return found


def _by_kind(name: str, asked: Named, splits: list[str]) -> dict[str, str]:
    """Map splits to their kinds, such as `train_prefs` to train; raise E213 if two are equal."""
    kinds = {split: kind_of(split) or split for split in splits}
    same = [split for split in splits if list(kinds.values()).count(kinds[split]) > 1]
    if same:
        problem = f"has several splits of one kind: {', '.join(same)}"
        remedy = f"name one of each, such as --split train={SCHEME}{asked.repo}:{same[0]}"
        raise UsageError("E213", name, problem, remedy)
    return kinds


def _fetch_checked(repo: Repo, remote: Remote, path: str) -> str:
    """Fetch a file and check it against the Hub's checksum; return its path in the cache."""
    fetched = fetch_file(repo, path, remote.head)
    if changed_files(remote, {path: fetched}):
        forget(fetched)
        problem = f"sent {path} with other bytes than it has at {remote.head[:12]}"
        raise HubError("E209", repo.name, problem, "run the same command again")
    return str(fetched)
