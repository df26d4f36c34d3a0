"""Input files: expansion of names and globs, and a check that no file changes during reading."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import orjson

from prefdata.errors import UsageError
from prefdata.hub.inputs import origin_of
from prefdata.records.sources import Source, is_data_name

_OWN = Source(path="")


@dataclass(frozen=True)
class InputFile:
    """A file as the user named it, and its index among the inputs."""

    path: Path
    name: str
    index: int
    label: str = ""
    of: Source = _OWN
    """The source that names it."""
    note: str = ""
    """What the user should know about how it was found."""

    @property
    def source(self) -> str:
        """Return its name in outputs: its label in a build, the name as given in a validation."""
        return self.label or self.name


class Stamp(NamedTuple):
    """File attributes that change on every write."""

    inode: int
    size: int
    mtime_ns: int


def expand_inputs(patterns: Sequence[str]) -> list[InputFile]:
    """Return the files of names, globs and directories: in the order given, each of them sorted."""
    found: dict[str, str] = {}
    for pattern in patterns:
        if os.path.lexists(pattern):  # a name may itself contain brackets
            saved = _saved_files(Path(pattern))
            names, note = (saved, "") if saved else _files_in(Path(pattern))
        else:
            names, note = sorted(glob.glob(pattern, recursive=True)), ""  # noqa: PTH207
        if not names:
            raise UsageError(
                "E100", pattern, "no such file", "check the path; globs are expanded here too"
            )
        for name in names:
            found.setdefault(name, note)
            note = ""
    files = [
        InputFile(Path(name), name, index, origin_of(Path(name)) or "", note=note)
        for index, (name, note) in enumerate(found.items())
    ]
    for file in files:
        _require_text(file.name)
        stamp(file)
    return files


def _files_in(path: Path) -> tuple[list[str], str]:
    """Return the data files below a directory, sorted, and a note on those that are not read.

    Of a build it is the text shards. A file is itself.
    """
    if not path.is_dir():
        return [str(path)], ""
    if (path / "manifest.json").is_file() and (path / "text").is_dir():
        path = path / "text"
    below = sorted(one for one in path.rglob("*") if _is_of(path, one))
    names = [str(one) for one in below if is_data_name(one.name)]
    others = [one.name for one in below if not is_data_name(one.name)]
    if not names:
        problem = "is a directory without data files"
        raise UsageError("E116", str(path), problem, f"name a file; read are {_READ}")
    more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
    skipped = f"; not read: {', '.join(others[:_SHOWN])}{more}" if others else ""
    return names, f"{path.name}: a directory; data files read: {len(names):,}{skipped}"


def _is_of(folder: Path, path: Path) -> bool:
    """Return whether a path is a file of the directory: not hidden, and not of a build in it."""
    inner = path.relative_to(folder)
    builds = any((folder / up / "manifest.json").is_file() for up in inner.parents if up.name)
    return path.is_file() and not builds and not any(part.startswith(".") for part in inner.parts)


def _saved_files(folder: Path) -> list[str]:
    """Return the files of a set that `datasets` saved to disk, by split; empty for other paths.

    Raises UsageError (E100) if a listed file is missing.
    """
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = orjson.loads((folder / "dataset_dict.json").read_bytes())["splits"]
            return [file for split in splits for file in _saved_files(folder / str(split))]
        if not (folder / "state.json").is_file():
            return []
        listed = orjson.loads((folder / "state.json").read_bytes())["_data_files"]
        names = [str(file["filename"]) for file in listed]
    except (OSError, orjson.JSONDecodeError, TypeError, KeyError) as error:
        problem = "is a saved set whose state.json or dataset_dict.json cannot be read"
        raise UsageError("E100", str(folder), problem, "save it again") from error
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            problem = f"is a saved set whose state.json names {name!a}, which is missing"
            raise UsageError("E100", str(folder), problem, "save it again")
    return [str(folder / name) for name in names]


def label_sources(files: Sequence[InputFile], digests: Mapping[str, str]) -> list[InputFile]:
    """Return the files, each with a label that does not reveal its directory, and without its note.

    A label is the base name, or the name on the Hub with its commit. If several files share it,
    `@` and the start of the content's sha256 follow (`train.jsonl@1a2b3c4d`), and a number if the
    content is also equal.
    """
    shared = Counter(file.path.name for file in files)
    used: Counter[str] = Counter()
    labelled = []
    for file in files:
        label = origin_of(file.path) or file.path.name
        if shared[label] > 1:
            label = f"{label}@{digests[file.name][:8]}"
        used[label] += 1
        label = label if used[label] == 1 else f"{label}.{used[label]}"
        labelled.append(replace(file, label=label, note=""))
    return labelled


def _require_text(name: str) -> None:
    """Raise E190 for a name that is not UTF-8, which no report can contain."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        remedy = "rename it, or set LC_ALL=C.UTF-8 if the name is right"
        raise UsageError("E190", name, "is not text in UTF-8", remedy) from error


def stamp(file: InputFile) -> Stamp:
    """Return the file's current stamp; E116 if it is not a readable regular file."""
    try:
        about = file.path.stat()
    except OSError as error:
        raise UsageError("E116", file.name, f"cannot be read: {error.strerror}", REMEDY) from error
    if not stat.S_ISREG(about.st_mode):
        kind = "a directory" if stat.S_ISDIR(about.st_mode) else "not a regular file"
        raise UsageError("E116", file.name, f"is {kind}", REMEDY)
    if not os.access(file.path, os.R_OK):
        raise UsageError("E116", file.name, "cannot be read: permission denied", REMEDY)
    return Stamp(about.st_ino, about.st_size, about.st_mtime_ns)


def require_unchanged(file: InputFile, before: Stamp, *, is_whole: bool) -> None:
    """Raise E115 if the file changed since reading began, or if bytes are missing."""
    if stamp(file) != before or not is_whole:
        raise UsageError(
            "E115", file.name, "changed while it was being read", "run again when it is complete"
        )


REMEDY = "name regular files, or a glob that matches them"
_READ = ".jsonl, .json, .csv, .tsv, .parquet and .arrow, plain or packed"
_SHOWN = 3
