"""Manifest of a finished build, with its own hash."""

import operator
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import orjson
from pydantic import Field
from pydantic_core import ErrorDetails

from prefdata.errors import UsageError
from prefdata.records.findings import Location
from prefdata.records.split_names import SaidBy
from prefdata.settings import StrictModel, load_model
from prefdata.store.canonical import Sealed, own_hash
from prefdata.store.commit import FileDigest

FORMAT_VERSION = 1
NAME = "manifest.json"
# Without its manifest the directory's content is unknown, so nothing there is replaced.
_ELSEWHERE = "build into another directory"


class LineClasses(StrictModel):
    """Lines by outcome: lines = blank + kept + duplicates + filtered + rejected."""

    lines: int
    blank: int
    kept: int
    duplicates: int
    filtered: int
    rejected: int


class ColumnNotRead(StrictModel):
    """A column of an input file that does not affect the build."""

    name: str
    rows: int
    """Rows in which it has a value."""
    kind: str
    """Kind of its values: text, number, messages, list of texts, object."""
    example: str
    """First value as JSON, shortened; empty in a build, which stores no values it does not use."""
    means: str | None = None
    """Meaning of its name for training, such as `system` or `scores`; null if it has none."""


class Reading(StrictModel):
    """Choices made in reading one file, and the columns that were not read."""

    chosen_by: Literal["columns", "name", "options", "nothing"] = "nothing"
    """What the layout was chosen by: the columns of the first rows, its name in the config, or the
    columns that the config names; `nothing` if the file has no rows."""
    said: list[str] = []
    """Further choices, one sentence each."""
    not_read: list[ColumnNotRead] = []
    """Columns that were not read, in the order of the rows' columns."""


class TextReading(StrictModel):
    """Form in which the plain text of one input was read."""

    form: Literal["chat", "verbatim"]
    """`chat`: a user turn and an assistant turn; `verbatim`: prompt and completion concatenated."""
    why: str


class SeenPair(StrictModel):
    """The first kept pair of an input as the model sees it, decoded from its token ids.

    The middle of long texts is left out.
    """

    line: int
    element: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Number of the element in a JSON array, from 1; `line` is the line on which it begins."""
    prompt: str
    chosen: str
    rejected: str
    is_plain: bool = Field(default=False, exclude_if=operator.not_)
    """True in a validation without token ids: the pair as text, its turns joined; its end is left
    out if it is long."""


class InputSeal(StrictModel):
    """One input file as it was read."""

    name: str
    """In a build: the file's base name, with a part of its sha256 if others share it. In a
    validation: the name that the user gave."""
    bytes: int
    sha256: str
    layout: str
    lines: LineClasses
    reading: Reading = Reading()
    text: TextReading | None = None
    """How plain text was read; null for dialogues."""
    first_pair: SeenPair | None = None
    """First pair of the input; null if none became tokens."""
    split: str | None = None
    """The split of all its rows; null if its rows name it, or if pairs are drawn by prompt."""
    split_from: SaidBy = "none"
    """Source of the split: the config (`given`), the `name` of the file or of its `folder`, or its
    `rows`. Without one, it is train if other inputs have splits (`rest`), else `drawn` by prompt;
    `none` in a validation, which draws no splits."""

    @property
    def first_place(self) -> str:
        """Return the place of the first pair in words: `rows.json:17 (element 3)`."""
        pair = self.first_pair
        return "" if pair is None else str(Location(self.name, pair.line, "", element=pair.element))


class TokenizerIdentity(StrictModel):
    """Identity of the tokenizer, which decides the ids of a build."""

    name: str
    """Name on the Hub, or name of a directory without its path."""
    revision: str | None
    tokenizer_sha256: str
    """sha256 of the fast tokenizer's JSON, as the library serializes it."""
    template_sha256: str | None
    """sha256 of the chat template; null if the tokenizer has none."""
    vocab_size: int
    """Number of tokens; all ids are below it."""
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None


class FunnelStage(StrictModel):
    """Numbers of pairs that enter a stage and leave it."""

    stage: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    """Dropped rows, by code."""


class SplitStats(StrictModel):
    """Counts of one split."""

    rows: int
    groups: int
    """Distinct prompts."""
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.chosen_tokens + self.rejected_tokens


class SourceMix(StrictModel):
    """Part of one source in the train split of a mixture."""

    name: str
    """The source's name in the config, or that of its first file."""
    weight: float
    pairs: int
    """Pairs of the source that are kept in train, each counted once."""
    rows: int
    """Rows of train that are of the source: weight times pairs, rounded."""


class ShardSeal(StrictModel):
    """One token shard."""

    path: str
    """Path relative to the build's directory."""
    split: str
    rows: int
    tokens: int
    """Tokens of prompts, chosen and rejected together."""
    bytes: int
    sha256: str

    @property
    def seal(self) -> FileDigest:
        return FileDigest(self.bytes, self.sha256)


class OtherFile(StrictModel):
    """A file of the build that is not a token shard."""

    path: str
    rows: int | None
    bytes: int
    sha256: str

    @property
    def seal(self) -> FileDigest:
        return FileDigest(self.bytes, self.sha256)


class Manifest(Sealed):
    """Everything that a reader of a build must know before it opens a shard."""

    format: Literal["prefdata-build"] = "prefdata-build"
    format_version: Literal[1] = 1
    tool_version: str
    libraries: dict[str, str] = {}
    """Versions of the libraries that read, cut and wrote the rows."""
    fingerprint: str
    """Hash of config, inputs, tokenizer and version, 16 hex digits; equal for equal builds."""
    content_hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of what is trained: ids, tokens, masks, weights, margins and ranks of each split, and
    the tokenizer; independent of paths, shard boundaries and library versions."""
    part_of: str | None = None
    """For some splits of a shared set: the hash of the whole set's manifest, which `inputs`,
    `lines`, `funnel` and the report describe."""
    config: dict[str, Any]
    """The resolved config, without paths and without settings that affect only place or speed."""
    inputs: list[InputSeal]
    tokenizer: TokenizerIdentity
    lines: LineClasses
    funnel: list[FunnelStage]
    splits: dict[str, SplitStats]
    mixture: list[SourceMix] = Field(default=[], exclude_if=operator.not_)
    """Each source's part of train; absent if all weights are 1."""
    shards: list[ShardSeal]
    files: list[OtherFile]


def shared_name(name: str) -> str:
    """Return a model's, tokenizer's or file's name for a manifest: without its directories.

    >>> shared_name("org/model"), shared_name(__file__)
    ('org/model', 'manifest.py')
    """
    return Path(os.path.abspath(name)).name if os.path.lexists(name) else name  # noqa: PTH100


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a finished build; its shards are not read."""
    path = folder / NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = f"has no {NAME}, so no build was finished here"
        raise UsageError("E132", str(folder), problem, "run `prefdata build` again") from error
    except OSError as error:
        remedy = "check its permissions"
        raise UsageError("E132", str(path), f"cannot be read ({error.strerror})", remedy) from error
    manifest = _parse(path, data)
    check_paths(path, [*manifest.shards, *manifest.files])
    return manifest


def _parse(path: Path, data: bytes) -> Manifest:
    """Parse a manifest and check its hash; earlier versions wrote fewer fields."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UsageError("E133", str(path), f"is not JSON ({error})", _ELSEWHERE) from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        problem = f"has format version {version}; this prefdata reads up to {FORMAT_VERSION}"
        raise UsageError("E134", str(path), problem, "install a newer prefdata")

    def refuse(where: str, fault: ErrorDetails) -> UsageError:
        said = f"{where or 'manifest'}: {fault['msg'].lower()}"
        problem = f"is not a manifest of a build: {said}"
        return UsageError("E133", str(path), problem, _ELSEWHERE)

    manifest = load_model(Manifest, value, refuse)
    if manifest.hash != own_hash(value):
        problem = "was changed after it was written: its hash does not match its content"
        raise UsageError("E133", str(path), problem, _ELSEWHERE)
    return manifest


def check_paths(manifest: Path, entries: Sequence[ShardSeal | OtherFile]) -> None:
    """Refuse names that lead out of the directory, or that are equal if case is ignored."""
    seen: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.path)
        parts = entry.path.split("/")
        leaves = path.is_absolute() or any(part in ("", ".", "..") for part in parts)
        if leaves or any(char in entry.path for char in "\0\\:") or not entry.path.isprintable():
            problem = f"names {entry.path!r}, which is not a plain path inside the directory"
            raise UsageError("E131", str(manifest), problem, "do not use this directory")
        if entry.path.casefold() in seen:
            problem = f"names {entry.path!r} twice"
            raise UsageError("E131", str(manifest), problem, "do not use this directory")
        seen.add(entry.path.casefold())
