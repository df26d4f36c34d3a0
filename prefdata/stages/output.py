"""Where a build goes: apart from what it reads, and over nothing but what a build of ours left."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from prefdata.config import BuildConfig
from prefdata.errors import UsageError
from prefdata.hub.inputs import fetch_inputs
from prefdata.read import InputFile, expand_inputs
from prefdata.report.card import write_card
from prefdata.report.model import Report
from prefdata.stages.split import expand_splits
from prefdata.store.commit import make_folder
from prefdata.store.manifest import NAME, Manifest, read_manifest
from prefdata.store.ownership import (
    Read,
    free_name,
    require_apart,
    require_not_same,
    require_writable_name,
)
from prefdata.store.staging import (
    FILES,
    FOLDER,
    FOLDERS,
    discard_at,
    has_own_staging,
    placed_names,
    require_free,
    require_own_staging,
    undo_commit,
)

CARD = "README.md"


def with_fetched_inputs(config: BuildConfig) -> BuildConfig:
    """Return a config whose inputs are all on this machine: sets of the Hub are fetched."""
    return config.model_copy(update={"inputs": fetch_inputs(config.inputs)})


def files_of(config: BuildConfig) -> list[InputFile]:
    """Return every file of rows that a build reads."""
    others = expand_inputs([*config.evaluations, *config.exclude])
    return [*expand_splits(config.inputs)[0], *others]


def reads_of(config: BuildConfig, files: Sequence[InputFile]) -> list[Read]:
    """Return everything on disk that a build reads."""
    reads = [Read("an input", file.path) for file in files]
    if Path(config.tokenizer).exists():
        reads.append(Read("the tokenizer", Path(config.tokenizer)))
    if config.chat_template is not None:
        reads.append(Read("the chat template", config.chat_template))
    if config.layout is not None and Path(config.layout).is_file():
        reads.append(Read("the layout", Path(config.layout)))
    return reads


def check_place(out: Path, reads: Sequence[Read]) -> None:
    """Raise a coded error where a build in this directory would touch what is not its own."""
    require_writable_name(out)
    require_not_same(out, reads)
    targets = [out / name for name in (*FILES, *FOLDERS, FOLDER)]
    require_apart(targets, reads)


def open_place(out: Path) -> bool:
    """Make the directory; return whether it is new, so that a failed build may remove it again."""
    is_new = not os.path.lexists(out)
    make_folder(out)
    return is_new


def old_build(out: Path) -> Manifest | None:
    """Return the manifest of the build that stands here.

    Raises E143 where the directory holds anything else than a build of ours, whole or begun.
    """
    undo_commit(out)
    if os.path.lexists(out / NAME):
        return read_manifest(out)
    require_own_staging(out)
    if not has_own_staging(out):
        if any(out.iterdir()):
            problem = "is not empty, and holds no build of ours"
            raise UsageError("E143", str(out), problem, "name another output directory")
        return None
    require_free(out, FILES, placed_names(out))
    return None


def is_finished(out: Path, old: Manifest | None, mark: str, *, replace: bool) -> bool:
    """Return whether this very build stands there; E142 where another one may not be replaced."""
    if old is None or replace:
        return False
    if old.fingerprint != mark:
        problem = f"holds another build ({old.fingerprint}; this one is {mark})"
        remedy = "name another output directory, or replace that build with --replace"
        raise UsageError("E142", str(out), problem, remedy)
    discard_at(out)
    return True


def replaced_names(out: Path, old: Manifest | None) -> set[str]:
    """Return the names that a new build may take: those of the old one, its card if unedited."""
    if old is None:
        return set()
    listed = {seal.path for seal in old.shards} | {file.path for file in old.files}
    return {NAME, *listed} | ({CARD} if _is_own_card(out) else set())


def name_card(out: Path, replaces: set[str]) -> str:
    """Return the name of the new card: another one where somebody edited the old build's."""
    if os.path.lexists(out / CARD) and CARD not in replaces | placed_names(out):
        return free_name(out / CARD).name
    return CARD


def _is_own_card(out: Path) -> bool:
    """Whether the card is as the build wrote it; people edit cards, so no manifest seals them.

    Lines are compared without their order: a report that was read has the keys of configs sorted.
    """
    try:
        report = Report.model_validate_json((out / "report.json").read_bytes())
        own = write_card(report, name=out.name)
        return sorted((out / CARD).read_text("utf-8").split("\n")) == sorted(own.split("\n"))
    except (OSError, ValueError, ValidationError):
        return False
