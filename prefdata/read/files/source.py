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


@dataclass(frozen=True)
class InputFile:
    """A file as the user named it, and its index among the inputs."""

    path: Path
    name: str
    index: int
    label: str = ""

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
    """Return the files that match names and globs: in the order given, each glob sorted."""
    names: dict[str, None] = {}
    for pattern in patterns:
        literal = os.path.lexists(pattern)  # a name may itself contain brackets
        saved = _saved_files(Path(pattern)) if literal else []
        found = saved or [pattern] if literal else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not found:
            raise UsageError(
                "E100", pattern, "no such file", "check the path; globs are expanded here too"
            )
        names.update(dict.fromkeys(found))
    files = [InputFile(Path(name), name, index) for index, name in enumerate(names)]
    for file in files:
        _require_text(file.name)
        stamp(file)
    return files


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
    """Return the files, each with a label that does not reveal its directory.

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
        labelled.append(replace(file, label=label))
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
