"""Checks of the output directory: it must not overlap the inputs or contain foreign files."""

import os
from collections.abc import Sequence
from pathlib import Path

from prefdata.config import BuildConfig
from prefdata.errors import UsageError
from prefdata.hub.inputs import fetch_inputs
from prefdata.read import InputFile, expand_inputs
from prefdata.records.sources import as_sources
from prefdata.report.card import write_card
from prefdata.report.model import Report
from prefdata.stages.split import expand_splits
from prefdata.store.commit import FileDigest, make_folder
from prefdata.store.manifest import NAME, Manifest, read_manifest
from prefdata.store.ownership import (
    Read,
    free_name,
    is_page_of,
    require_apart,
    require_not_same,
    require_writable_name,
)
from prefdata.store.staging import (
    FILES,
    FOLDER,
    FOLDERS,
    PAGE,
    Staging,
    discard_at,
    has_own_staging,
    placed_names,
    require_free,
    require_own_staging,
    undo_commit,
)

CARD = "README.md"


def with_fetched_inputs(config: BuildConfig) -> BuildConfig:
    """Return a config whose inputs are all local: datasets of the Hub are downloaded."""
    return config.model_copy(update={"inputs": fetch_inputs(config.inputs)})


def files_of(config: BuildConfig) -> list[InputFile]:
    """Return every data file that a build reads."""
    others = expand_inputs([*config.evaluations, *config.exclude])
    return [*expand_splits(config.inputs)[0], *others]


def reads_of(config: BuildConfig, files: Sequence[InputFile]) -> list[Read]:
    """Return everything on disk that a build reads."""
    reads = [Read("an input", file.path) for file in files]
    if Path(config.tokenizer).exists():
        reads.append(Read("the tokenizer", Path(config.tokenizer)))
    if config.chat_template is not None:
        reads.append(Read("the chat template", config.chat_template))
    layouts = [config.layout, *(source.layout for source in as_sources(config.inputs))]
    named = dict.fromkeys(Path(layout) for layout in layouts if layout)
    return reads + [Read("the layout", layout) for layout in named if layout.is_file()]


def check_place(out: Path, reads: Sequence[Read]) -> None:
    """Raise a coded error if a build in this directory would overwrite files that it reads."""
    require_writable_name(out)
    require_not_same(out, reads)
    targets = [out / name for name in (*FILES, *FOLDERS, FOLDER)]
    require_apart(targets, reads)


def open_place(out: Path) -> bool:
    """Create the directory; return True if it is new, so that a failed build can remove it."""
    is_new = not os.path.lexists(out)
    make_folder(out)
    return is_new


def old_build(out: Path) -> Manifest | None:
    """Return the manifest of the finished build in this directory, or None.

    Raises E143 if the directory contains anything but a finished or unfinished build.
    """
    undo_commit(out)
    if os.path.lexists(out / NAME):
        return read_manifest(out)
    require_own_staging(out)
    if not has_own_staging(out):
        if any(out.iterdir()):
            problem = "is not empty, and does not contain a build"
            raise UsageError("E143", str(out), problem, "name another output directory")
        return None
    require_free(out, FILES, placed_names(out))
    return None


def is_finished(out: Path, old: Manifest | None, mark: str, *, replace: bool) -> bool:
    """Return whether this same build is already there; raise E142 if it is another one."""
    if old is None or replace:
        return False
    if old.fingerprint != mark:
        problem = f"contains another build ({old.fingerprint}; this one is {mark})"
        remedy = "name another output directory, or replace that build with --replace"
        raise UsageError("E142", str(out), problem, remedy)
    discard_at(out)
    return True


def commit_build(
    staging: Staging, seals: dict[str, FileDigest], manifest: bytes, old: Manifest | None
) -> list[str]:
    """Move a build to its final place, instead of the old one; return notes for the user.

    An edited card is kept, and the new one gets a free name.
    """
    out, card, replaces = staging.out, CARD, set[str]()
    if old is not None:
        replaces = {NAME, *(seal.path for seal in old.shards), *(file.path for file in old.files)}
        replaces |= {CARD} if _is_own_card(out) else set()
        replaces |= {PAGE} if has_own_page(out) else set()
    if os.path.lexists(out / CARD) and CARD not in replaces | placed_names(out):
        card = free_name(out / CARD).name
        (staging.root / CARD).replace(staging.root / card)
        seals[card] = seals.pop(CARD)
    staging.commit(seals, manifest, replaces=replaces)
    if card == CARD:
        return []
    return [f"{CARD} was edited since the last build, so it is kept; the new card is {card}"]


def has_own_page(out: Path) -> bool:
    """Return whether the page in a build's directory is a report that prefdata wrote."""
    return (out / PAGE).is_file() and is_page_of("prefdata")(out / PAGE)


def _is_own_card(out: Path) -> bool:
    """Return whether the card is as the build wrote it; no manifest seals it, as people edit it.

    Lines are compared without their order, because a report that was read has sorted config keys.
    """
    try:
        report = Report.model_validate_json((out / "report.json").read_bytes())
        own = write_card(report, name=out.name)
        return sorted((out / CARD).read_text("utf-8").split("\n")) == sorted(own.split("\n"))
    except (OSError, ValueError):
        return False
