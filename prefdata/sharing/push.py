"""`prefdata push`: a build and its reference log-probs in one commit, verified on arrival."""

import re
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars as pl

from prefdata.errors import UsageError
from prefdata.hub.errors import HubError
from prefdata.hub.inputs import is_hub_name
from prefdata.hub.repo import (
    Commit,
    Remote,
    Repo,
    Target,
    changed_files,
    check_login,
    commit_files,
    create_branch,
    create_repo,
    fetch_file,
    look_at,
    require_not_public,
    require_ours,
    tag_commit,
)
from prefdata.progress import Progress, Silent
from prefdata.records.secrets import find_private, suspects
from prefdata.report.figures import count, listed
from prefdata.report.form import report_of
from prefdata.report.html.page import render_report
from prefdata.report.lengths import PARTS
from prefdata.report.model import Report
from prefdata.sharing.card import (
    Shared,
    describe_configs,
    find_licence,
    folders_of,
    write_shared_card,
)
from prefdata.sharing.record import (
    CARD,
    NAME,
    Names,
    Record,
    parquet_name,
    parse_record,
    seal_files,
)
from prefdata.sharing.references import MANIFEST as REFERENCE_MANIFEST
from prefdata.sharing.references import StoredReference, find_references
from prefdata.sharing.tables import write_parquet
from prefdata.stages.output import has_own_page
from prefdata.store.manifest import NAME as MANIFEST
from prefdata.store.reader import Build, open_build
from prefdata.store.staging import PAGE

_LICENCE = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}")
_MOST_NAMED = 5


class PushOptions(NamedTuple):
    """Options of a push; most allow what it refuses by default."""

    public: bool = False
    create_pr: bool = False
    dry_run: bool = False
    with_rejected: bool = False
    replace: bool = False
    """Remove files from the repo that no push made."""
    branch: str | None = None
    onto: str | None = None
    """Commit that must be the head, so that nothing newer is replaced."""
    licence: str | None = None
    """Licence of the set, for the card; None uses that of its sources."""
    no_licence: bool = False
    """Push a set without a known licence."""
    allow_secrets: bool = False


_PLAIN = PushOptions()


class Pushed(NamedTuple):
    """Result of a push, or of its dry run."""

    commit: str | None
    """40 hex digits of the commit with the set; None in a dry run."""
    url: str | None
    """Address of a new commit or pull request; None if none was made."""
    uploaded: dict[str, int]
    """Size in bytes of each new or changed file."""
    removed: list[str]
    names: Names
    is_private: bool


def push(
    out: Path | str,
    name: str,
    options: PushOptions = _PLAIN,
    *,
    progress: Progress | None = None,
) -> Pushed:
    """Share a finished build as a dataset repo; the repo holds the old set or the new one.

    Every byte of the build is verified first. Unless `options` allow it, a push refuses to remove
    other people's files (E205), to push to a public repo (E206), and to share a set without a
    licence (E207) or with secrets (E208). Raises PrefdataError; the build is not changed.
    """
    repo = Repo(name)
    build = _open_whole(out)
    report = report_of(build)
    licence = require_licence(report, options)
    if not options.allow_secrets:
        require_no_secrets(build)
    check_login(repo)
    remote = look_at(repo)
    require_not_public(repo, remote, public=options.public)
    if options.onto is not None and (remote is None or remote.head != options.onto):
        problem = f"has another head than {options.onto[:12]}, which this was made from"
        raise HubError("E203", name, problem, "run the same command again, with its newest commit")
    if options.branch is not None and remote is not None:
        remote = look_at(repo, options.branch) or remote
    with tempfile.TemporaryDirectory(prefix="prefdata-push-") as folder:
        root, references = Path(folder), find_references(build)
        names = Names.of(build.manifest, [one.name for one in references])
        files = shared_files(build, references, names, root, options, progress or Silent())
        files[NAME] = _write_record(build, names, files, root)
        before = _record_at(repo, remote)
        ours = before.paths if before is not None else {CARD}
        gone = sorted(require_ours(repo, remote, ours, replace=options.replace) - {*files, CARD})
        described = [
            (one, find_licence(model) if is_hub_name(model := one.manifest["model"]) else None)
            for one in references
        ]
        info = describe_configs(folders_of(names), files)
        shared = Shared(build, name, names, described, licence, info)
        theirs = _card_at(repo, remote)
        (root / CARD).write_text(write_shared_card(report, shared, theirs), encoding="utf-8")
        files[CARD] = root / CARD
        plan = _Plan(repo, remote, files, gone, names, f"build-{build.manifest.hash[:16]}")
        return _send(plan, options)


def _open_whole(out: Path | str) -> Build:
    build = open_build(out, remembers=False)
    if build.manifest.part_of:
        problem = f"holds only some splits ({', '.join(build.splits)}) of a set"
        raise UsageError("E214", str(out), problem, "pull all of it, or build the splits again")
    return build


def say_pushed(name: str, done: Pushed) -> Iterator[str]:
    """Yield lines that report what was pushed, and how to load the set."""
    some = count(len(done.uploaded), "file")
    size = f"{sum(done.uploaded.values()) / 1e6:,.1f} MB"
    seen = "private" if done.is_private else "public"
    for path, num_bytes in done.uploaded.items() if done.commit is None else ():
        yield f"{num_bytes:>14,}  {path}"
    for path in done.removed:
        yield f"{'removed':>14}  {path}"
    if done.commit is None:
        yield f"dry run: {some} ({size}) would go to {name} ({seen}); nothing was changed"
        return
    if done.url is None:
        yield f"{name} ({seen}) holds this set already, at {done.commit}"
    else:
        yield f"{name} ({seen}) holds the set at {done.commit}: {some} uploaded ({size})"
        yield done.url
    yield f'datasets   load_dataset("{name}", revision="{done.commit}")'
    yield f'TRL        DPOTrainer(…, train_dataset=load_dataset("{name}", split="train"))'
    yield f"dpo-train  data: {name}@{done.commit[:12]}"


class _Plan(NamedTuple):
    """Planned contents of a repo."""

    repo: Repo
    remote: Remote | None
    files: dict[str, Path]
    gone: list[str]
    names: Names
    title: str
    """Name of the build, for the tag and the commit message."""


def _send(plan: _Plan, options: PushOptions) -> Pushed:
    repo, remote, files, gone, names, title = plan
    is_private = remote.is_private if remote is not None else not options.public
    changed = files if remote is None else changed_files(remote, files)
    sizes = {name: path.stat().st_size for name, path in changed.items()}
    if options.dry_run:
        return Pushed(None, None, sizes, gone, names, is_private)
    if remote is None:
        create_repo(repo, public=options.public)
        remote = look_at(repo)
        assert remote is not None
    if options.branch is not None:
        create_branch(repo, options.branch)
        remote = look_at(repo, options.branch)
        assert remote is not None
    target = Target(repo, remote, options.branch, options.create_pr)
    made = commit_files(target, files, gone=gone, message=f"prefdata {title}")
    commit = made or Commit(remote.head, None)
    if not options.create_pr:
        tag_commit(repo, title, commit.oid)
    return Pushed(commit.oid, commit.url, sizes, gone, names, is_private)


def shared_files(
    build: Build,
    references: list[StoredReference],
    names: Names,
    root: Path,
    options: PushOptions,
    progress: Progress,
) -> dict[str, Path]:
    """Return every file to share, by its name in the repo; tokens are written to `root`."""
    files = {MANIFEST: build.path / MANIFEST}
    for entry in build.manifest.files:
        if options.with_rejected or not entry.path.startswith("rejected/"):
            files[entry.path] = build.file(entry.path)
    if PAGE not in files:
        files[PAGE] = _page(build, root, with_rejected=options.with_rejected)
    shards = [shard for split in build.splits for shard in build.shards(split)]
    kinds: list[tuple[str, StoredReference | None]] = [(names.tokens, None)]
    kinds += [(names.references[one.name], one) for one in references]
    with progress.bar("writing", sum(shard.rows for shard in shards) * len(kinds)) as advance:
        for (folder, reference), shard in product(kinds, shards):
            name = parquet_name(folder, shard.name)
            logps = None if reference is None else reference.read(shard)
            write_parquet(root / name, shard.read(), logps)
            files[name] = root / name
            advance(shard.rows)
    for one in references:
        files[f"reference/{one.name}/{REFERENCE_MANIFEST}"] = one.folder / REFERENCE_MANIFEST
    return files


def _page(build: Build, root: Path, *, with_rejected: bool) -> Path:
    """Return the build's page, which has text of refused rows, or one without it."""
    if with_rejected and has_own_page(build.path):
        return build.path / PAGE
    (root / PAGE).write_text(render_report(report_of(build)), encoding="utf-8")
    return root / PAGE


def require_licence(report: Report, options: PushOptions) -> str | None:
    """Return the licence for the card; raise E207 if none is known, unless `no_licence` is set."""
    if options.licence is not None:
        if options.no_licence:
            problem = "is given with --no-license"
            raise UsageError("E207", f"--license {options.licence!a}", problem, "give one of them")
        if not _LICENCE.fullmatch(options.licence):
            remedy = "write an identifier, such as mit, apache-2.0 or cc-by-4.0"
            raise UsageError("E207", f"--license {options.licence!a}", "is not a licence", remedy)
        return options.licence.lower()
    known = {source.licence for source in report.sources}
    if len(known) == 1 and None not in known:
        return None  # the report's header says it
    if options.no_licence:
        return None
    several = sorted(one for one in known if one)
    said = f"its sources name {', '.join(several)}" if several else "none of its sources names one"
    if several and None in known:
        said += ", and others none"
    problem = f"has no single licence: {said}"
    raise UsageError("E207", "the build", problem, "pass --license NAME, or --no-license")


def require_no_secrets(build: Build) -> None:
    """Raise E208 if a text to share contains what looks like a key, a token or a password."""
    found = list(_secrets(build))
    if found:
        problem = f"holds what looks like secrets: {listed(found, _MOST_NAMED)}"
        remedy = "revoke and remove them, or pass --allow-secrets if they are harmless"
        raise UsageError("E208", str(build.path), problem, remedy)


def _secrets(build: Build) -> Iterator[str]:
    tables = (table for split in build.splits for table in build.text_parts(split))
    for table, part in ((table, part) for table in tables for part in PARTS):
        texts = pl.DataFrame(table.select(["source", "line", part]))
        if texts.schema[part] != pl.String:
            texts = texts.explode(part).unnest(part).rename({"content": part})
        suspicious = texts.select("source", "line", part).filter(suspects(pl.col(part)))
        for source, line, text in suspicious.iter_rows():
            for one in find_private(text):
                if one.is_secret:
                    yield f"{source}:{line} {part}: {one}"


def _write_record(build: Build, names: Names, files: dict[str, Path], root: Path) -> Path:
    record = Record(
        tool_version=build.manifest.tool_version,
        manifest_hash=build.manifest.hash,
        content_hash=build.content_hash,
        tokens=names.tokens,
        references=names.references,
        files=seal_files(files),
    )
    (root / NAME).write_bytes(record.sealed().to_bytes())
    return root / NAME


def _record_at(repo: Repo, remote: Remote | None) -> Record | None:
    """Return the record of an earlier push; None if there is none or it is damaged."""
    if remote is None or NAME not in remote.digests:
        return None
    data = fetch_file(repo, NAME, remote.head).read_bytes()
    try:
        return parse_record(data, repo.name)
    except UsageError:
        return None


def _card_at(repo: Repo, remote: Remote | None) -> str | None:
    if remote is None or CARD not in remote.digests:
        return None
    return fetch_file(repo, CARD, remote.head).read_text(encoding="utf-8", errors="replace")
