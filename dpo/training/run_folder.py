"""The output directory of a run: file names, their owners, and checks of a finished run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dpo.artifacts.save import ADAPTER, MODEL
from dpo.artifacts.summary import NAME, RunSummary, read_summary
from dpo.config import TrainConfig
from dpo.errors import UsageError
from dpo.training.checkpoint import find_checkpoint
from prefdata.errors import UsageError as OutputError
from prefdata.store.claim import Claim, open_claim
from prefdata.store.commit import FileDigest, seal_file
from prefdata.store.ownership import Read, require_apart, require_not_same, require_writable_name

COMMAND = "dpo-train"
METRICS, PAIRS, SAMPLES = "metrics.jsonl", "pairs.jsonl", "samples.jsonl"
HARDEST = "hardest.jsonl"
PAGE = "report.html"
CHECKPOINTS = "checkpoints"
FILES = (NAME, METRICS, PAIRS, SAMPLES, HARDEST, PAGE)
FOLDERS = (CHECKPOINTS, MODEL, ADAPTER)
_CARD = "README.md"


class Checked(NamedTuple):
    """Messages about a finished run; `again` if its model must be rebuilt."""

    lines: list[str]
    again: bool = False


def checkpoints_folder(out: Path) -> Path:
    return out / CHECKPOINTS


def claim_run(config: TrainConfig) -> Claim:
    """Return the record of what this command made in `out`; write nothing yet.

    Raises E170 if a run would change what it reads, E171 if it would change what no run wrote.
    """
    out = config.out
    require_writable_name(out)
    reads = [Read("the data", config.data)]
    named = [("the base model", config.model), ("the reference", config.reference_model)]
    named.append(("the adapter", None if config.lora is None else config.lora.start))
    for role, name in named:
        if name is not None and Path(name).exists():
            reads.append(Read(role, Path(name)))
    require_not_same(out, reads)
    require_apart([out / name for name in (*FILES, *FOLDERS)], reads)
    _require_kinds(out)
    claim = open_claim(out, COMMAND, (*FILES, *FOLDERS), lambda: _was_run(out))
    if not claim.made and (out / NAME).is_file():
        _adopt(claim)
    for name in (MODEL, ADAPTER):
        claim.require_own_folder(name)
    return claim


def _require_kinds(out: Path) -> None:
    """Raise E171 if a directory has the name of a file, or a file that of a directory."""
    wrong = [out / n for n in FILES if (out / n).is_symlink() or (out / n).is_dir()]
    wrong += [out / n for n in FOLDERS if os.path.lexists(out / n) and not (out / n).is_dir()]
    if wrong:
        problem = "has a name that a run uses, but is of another kind (file, directory, link)"
        remedy = "move it away, or name another `out`"
        raise OutputError("E171", str(wrong[0]), problem, remedy)


def _was_run(out: Path) -> bool:
    """Return whether a run wrote this directory, for directories without a list of files."""
    if (out / NAME).exists():
        return read_summary(out) is not None
    return find_checkpoint(checkpoints_folder(out)) is not None


def _adopt(claim: Claim) -> None:
    """Adopt the model of a finished run whose list is lost, by the seals in its summary."""
    summary = read_summary(claim.folder)
    claim.made.update(
        {n: FileDigest(*seal) for n, seal in (summary.files if summary else {}).items()}
    )


def seal_run(out: Path, made: Mapping[str, FileDigest]) -> dict[str, tuple[int, str]]:
    """Return the seals of a run's files, without cards, because people edit them."""
    logs = [name for name in FILES if name != NAME and (out / name).is_file()]
    seals = {**made, **{name: seal_file(out / name) for name in logs}}
    return {
        name: (seal.bytes, seal.sha256)
        for name, seal in sorted(seals.items())
        if not name.endswith(_CARD)
    }


def _is_as(path: Path, seal: tuple[int, str]) -> bool:
    return path.is_file() and path.stat().st_size == seal[0] and tuple(seal_file(path)) == seal


def check_finished(out: Path, summary: RunSummary) -> Checked:
    """Compare a finished run with its seals.

    Raises UsageError (T164) if its model differs and no checkpoint is left to rebuild it.
    """
    changed = [name for name, seal in summary.files.items() if not _is_as(out / name, seal)]
    of_model = [name for name in changed if name.split("/")[0] in (MODEL, ADAPTER)]
    if not of_model:
        return Checked([f"{out / name} is missing or has changed" for name in changed])
    found = find_checkpoint(checkpoints_folder(out))
    state = "is missing" if not (out / of_model[0]).exists() else "has changed"
    if found is None or found[1].fingerprint != summary.fingerprint:
        problem = f"{state}, and no checkpoint is left to rebuild it"
        remedy = "restore it, or name another `out`"
        raise UsageError("T164", str(out / of_model[0]), problem, remedy)
    said = f"{out / of_model[0]} {state}: it is rebuilt from {found[0].name}"
    return Checked([said], again=True)
