"""Claims on output directories: `.dpo-train.json` lists the files that a command made there.

A command's output directory may already contain files with names that it uses. Files on its list
are its own; every other file is foreign, and is neither changed nor removed.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from prefdata.errors import UsageError
from prefdata.settings import StrictModel
from prefdata.store.canonical import to_json
from prefdata.store.commit import FileDigest, fsync_path, seal_file, write_bytes
from prefdata.store.ownership import free_name, require_writable_name

_EDITED = "README.md"  # people edit cards
_REMEDY = "name another output directory, or move it away"


class _ClaimFile(StrictModel):
    format: Literal["prefdata-claim"] = "prefdata-claim"
    format_version: Literal[1] = 1
    command: str
    made: dict[str, FileDigest]


class Claim:
    """Files that a command made in its output directory, by relative path."""

    def __init__(self, folder: Path, command: str, made: dict[str, FileDigest]) -> None:
        self.folder, self.command, self.made = folder, command, made

    def save(self) -> None:
        """Write the list, before any other file, so that a kill leaves no file unlisted."""
        path = claim_path(self.folder, self.command)
        data = to_json(_ClaimFile(command=self.command, made=self.made))
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)

    def require_own_folder(self, name: str) -> None:
        """Raise E171 if a directory of that name contains files, but none of the command's."""
        path = self.folder / name
        if not os.path.lexists(path):
            return
        if path.is_symlink() or not path.is_dir():
            raise UsageError("E171", str(path), f"is not a directory of {self.command}", _REMEDY)
        is_empty = not any(path.iterdir())
        for made in self.made:
            if made.startswith(f"{name}/") and (self.folder / made).is_dir():
                problem = f"is a directory where {self.command} has a file"
                raise UsageError("E171", str(self.folder / made), problem, _REMEDY)
        if not is_empty and not any(made.startswith(f"{name}/") for made in self.made):
            raise UsageError("E171", str(path), f"was not made by {self.command}", _REMEDY)

    def place(self, staged: Path, name: str) -> dict[str, FileDigest]:
        """Move a staged directory to its name and return its files; foreign files there are kept.

        An edited card is kept too, and the new one is written next to it.
        """
        final = self.folder / name
        card = final / _EDITED
        known = self.made.get(f"{name}/{_EDITED}")
        if card.is_file() and known is not None and seal_file(card) != known:
            (staged / _EDITED).rename(staged / free_name(card).name)
        files = {path.relative_to(staged) for path in staged.rglob("*") if path.is_file()}
        seals = {f"{name}/{path.as_posix()}": seal_file(staged / path) for path in files}
        self._require_free(seals, staged)
        gone = {n for n in self.made if n.startswith(f"{name}/")} - seals.keys()
        self.made.update(seals)
        self.save()
        if not os.path.lexists(final):
            staged.rename(final)
        else:
            _merge(staged, final, files)
        for old in gone - {f"{name}/{_EDITED}"}:
            (self.folder / old).unlink(missing_ok=True)
            del self.made[old]
        self.save()
        fsync_path(self.folder)
        return seals

    def _require_free(self, names: Iterable[str], staged: Path) -> None:
        taken = [n for n in names if os.path.lexists(self.folder / n) and n not in self.made]
        if taken:
            problem = f"was not made by {self.command}; the new files are in {staged}"
            raise UsageError("E171", str(self.folder / sorted(taken)[0]), problem, _REMEDY)


def _merge(staged: Path, final: Path, files: Iterable[Path]) -> None:
    for path in sorted(files):
        (final / path).parent.mkdir(parents=True, exist_ok=True)
        (staged / path).replace(final / path)
    shutil.rmtree(staged)
    fsync_path(final)


def claim_path(folder: Path, command: str) -> Path:
    return folder / f".{command}.json"


def open_claim(
    folder: Path, command: str, names: Iterable[str], is_proven: Callable[[], bool]
) -> Claim:
    """Return what a command made in a directory; nothing is written yet.

    Raises E171 if one of the command's names is taken, unless its list is there or `is_proven`
    finds something in the directory that only this command writes.
    """
    require_writable_name(folder)
    made = _read(claim_path(folder, command), command)
    if made is not None:
        return Claim(folder, command, made)
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken and not is_proven():
        raise UsageError("E171", str(folder / taken[0]), f"was not made by {command}", _REMEDY)
    return Claim(folder, command, {})


def _read(path: Path, command: str) -> dict[str, FileDigest] | None:
    try:
        found = _ClaimFile.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    if found.command != command:
        return None
    return {name: seal for name, seal in found.made.items() if ".." not in Path(name).parts}
