"""The manifest: what a finished build is, sealed by its own hash."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefdata.errors import UsageError
from prefdata.records.split_names import SaidBy
from prefdata.store.canonical import hash_json, to_json
from prefdata.store.commit import FileDigest

FORMAT_VERSION = 1
NAME = "manifest.json"
# What is in the directory cannot be known without its manifest, so nothing there is replaced.
_ELSEWHERE = "build into another directory"


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class LineClasses(_Model):
    """What became of each line: lines = blank + kept + duplicates + filtered + rejected."""

    lines: int
    blank: int
    kept: int
    duplicates: int
    filtered: int
    rejected: int


class ColumnNotRead(_Model):
    """A column that is in the rows of a file and decides nothing of what is built."""

    name: str
    rows: int
    """Rows in which it holds something."""
    kind: str
    """What it holds: text, number, messages, list of texts, object."""
    example: str
    """Its first value as JSON, cut; empty in a build, which holds no value that it does not use."""
    means: str | None = None
    """What its name says of training, such as `system` or `scores`; null where it says nothing."""


class Reading(_Model):
    """How one file was read: what was chosen for it, and what was left out."""

    chosen_by: Literal["columns", "name", "options", "nothing"] = "nothing"
    """What chose the layout: the columns of the first rows, its name in the config, or the columns
    that the config names; nothing, where the file holds no rows."""
    said: list[str] = []
    """Each further choice, a sentence each."""
    not_read: list[ColumnNotRead] = []
    """In the order of the rows' columns."""


class TextReading(_Model):
    """How the plain text of one input was read."""

    form: Literal["chat", "verbatim"]
    """`chat`: a user's turn and the assistant's; `verbatim`: prompt and completion end to end."""
    why: str


class SeenPair(_Model):
    """The first kept pair of an input as the model sees it, decoded from its token ids.

    The middle of long texts is left out.
    """

    line: int
    prompt: str
    chosen: str
    rejected: str


class InputSeal(_Model):
    """One input file as it was read."""

    name: str
    """In a build the file's base name, with a part of its sha256 where others share it; in a
    validation as the user gave it."""
    bytes: int
    sha256: str
    layout: str
    lines: LineClasses
    reading: Reading = Reading()
    text: TextReading | None = None
    """How plain text was read; null for dialogues."""
    first_pair: SeenPair | None = None
    """Null where no pair of the input became tokens."""
    split: str | None = None
    """The split of all its rows; null if its rows tell it, or if pairs are drawn by prompt."""
    split_from: SaidBy = "none"
    """Who says so: the config (`given`), the `name` of the file or of its `folder`, its `rows`, or
    nobody: then it is train where others have splits (`rest`), or `drawn` by prompt; `none`: not
    drawn, in a validation."""


class TokenizerIdentity(_Model):
    """What decides the ids of a build."""

    name: str
    """A name on the Hub, or that of a directory without the path to it."""
    revision: str | None
    tokenizer_sha256: str
    """sha256 of the fast tokenizer's JSON, as the library serializes it."""
    template_sha256: str | None
    """sha256 of the chat template; null where the tokenizer has none."""
    vocab_size: int
    """Ids are below it."""
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None


class FunnelStage(_Model):
    """Pairs that go into a stage and come out of it."""

    stage: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    """Rows that stay behind, by code."""


class SplitStats(_Model):
    """One split in numbers."""

    rows: int
    groups: int
    """Distinct prompts."""
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int


class ShardSeal(_Model):
    """One token shard."""

    path: str
    """Relative to the build's folder."""
    split: str
    rows: int
    tokens: int
    """Of prompts, chosen and rejected together."""
    bytes: int
    sha256: str

    @property
    def seal(self) -> FileDigest:
        return FileDigest(self.bytes, self.sha256)


class OtherFile(_Model):
    """A file of the build that is not a token shard."""

    path: str
    rows: int | None
    bytes: int
    sha256: str

    @property
    def seal(self) -> FileDigest:
        return FileDigest(self.bytes, self.sha256)


class Manifest(_Model):
    """Everything that a reader of a build has to know before it opens a shard."""

    format: Literal["prefdata-build"] = "prefdata-build"
    format_version: Literal[1] = 1
    tool_version: str
    libraries: dict[str, str] = {}
    """Versions of what read, cut and wrote the rows."""
    fingerprint: str
    """Sixteen hex digits of config, inputs, tokenizer and version: equal where a build would be."""
    content_hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of what is trained: ids, tokens, masks, weights, margins and ranks of each split, and
    the tokenizer; the same whatever the paths, the cuts into shards or the libraries' versions."""
    part_of: str | None = None
    """Of some splits of a shared set: the hash of the manifest of all of it, which `inputs`,
    `lines`, `funnel` and the report are of."""
    config: dict[str, Any]
    """The resolved config, without what only says where and how fast, and without any path."""
    inputs: list[InputSeal]
    tokenizer: TokenizerIdentity
    lines: LineClasses
    funnel: list[FunnelStage]
    splits: dict[str, SplitStats]
    shards: list[ShardSeal]
    files: list[OtherFile]
    hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of this file's canonical JSON without this field."""

    def sealed(self) -> "Manifest":
        """The same manifest with its own hash in it."""
        return self.model_copy(update={"hash": self._own_hash()})

    def to_bytes(self) -> bytes:
        return to_json(self.model_dump(mode="json"))

    def _own_hash(self) -> str:
        return hash_json(self.model_dump(mode="json", exclude={"hash"}))

    def is_whole(self) -> bool:
        """Whether the hash in the manifest is that of its content."""
        return self.hash == self._own_hash()


def shared_name(name: str) -> str:
    """Return a model's, tokenizer's or file's name as manifests hold it: without its directories.

    >>> shared_name("org/model"), shared_name(__file__)
    ('org/model', 'manifest.py')
    """
    return Path(os.path.abspath(name)).name if os.path.lexists(name) else name  # noqa: PTH100


def _is_whole(value: dict[str, Any]) -> bool:
    """The same of a file's content, which an earlier version wrote with fewer fields."""
    content = {name: said for name, said in value.items() if name != "hash"}
    return bool(value.get("hash") == hash_json(content))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished build, checked; its shards are not looked at."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = f"has no {NAME}, so no build was finished here"
        raise UsageError("E132", str(folder), problem, "run `prefdata build` again") from error
    except OSError as error:
        remedy = "see to its permissions"
        raise UsageError("E132", str(path), f"cannot be read ({error.strerror})", remedy) from error
    manifest, is_whole = _parse(path, data)
    if not is_whole:
        problem = "was changed after it was written: its hash is not that of its content"
        raise UsageError("E133", str(path), problem, _ELSEWHERE)
    check_paths(path, [*manifest.shards, *manifest.files])
    return manifest


def _parse(path: Path, data: bytes) -> tuple[Manifest, bool]:
    """A manifest, and whether it is as it was written."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UsageError("E133", str(path), f"is not JSON ({error})", _ELSEWHERE) from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        problem = f"has format version {version}; this prefdata reads up to {FORMAT_VERSION}"
        raise UsageError("E134", str(path), problem, "install a newer prefdata")
    try:
        return Manifest.model_validate(value), _is_whole(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        problem = f"is not a manifest of a build: {where}: {first['msg'].lower()}"
        raise UsageError("E133", str(path), problem, _ELSEWHERE) from error


def check_paths(manifest: Path, entries: Sequence[ShardSeal | OtherFile]) -> None:
    """Refuse names that lead out of the folder, or that one disk would hold as the same file."""
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.path)
        parts = entry.path.split("/")
        leaves = path.is_absolute() or any(part in ("", ".", "..") for part in parts)
        if leaves or any(char in entry.path for char in "\0\\:") or not entry.path.isprintable():
            problem = f"names {entry.path!r}, which is not a plain path inside the folder"
            raise UsageError("E131", str(manifest), problem, "do not use this folder")
        if entry.path.casefold() in seen:
            problem = f"names {entry.path!r} twice"
            raise UsageError("E131", str(manifest), problem, "do not use this folder")
        seen.add(entry.path.casefold())
