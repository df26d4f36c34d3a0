"""`prefdata.json` of a shared set: which files of the repo are ours, and what each of them is.

prefdata.json              this record, sealed by its own hash
README.md                  the card; people edit it, so it is not sealed
manifest.json report.*     as in the build
text/                      config `default`: messages
tokens-TOKENIZER/          a config: token ids, one Parquet file for each shard
tokens-TOKENIZER-NAME/     a config: the same rows with the log-probs of reference NAME
reference/NAME/manifest.json
rejected/                  only if asked for
"""

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prefdata.errors import UsageError
from prefdata.store.canonical import hash_json, to_json
from prefdata.store.commit import seal_file
from prefdata.store.manifest import NAME as MANIFEST
from prefdata.store.manifest import Manifest, OtherFile, check_paths

NAME, CARD = "prefdata.json", "README.md"
_ODD = re.compile(r"[^\w.+-]+", re.ASCII)


class Record(BaseModel):
    """What a repo holds of a build."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )

    format: Literal["prefdata-shared"] = "prefdata-shared"
    format_version: Literal[1] = 1
    tool_version: str
    manifest_hash: str
    """Of the build."""
    content_hash: str
    """Of the build: what is trained."""
    tokens: str
    """The directory of its tokens."""
    references: dict[str, str]
    """The directory of its tokens with the log-probs of each reference, by its name."""
    files: list[OtherFile]
    """By path; all but this one and the card."""
    hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of this file's canonical JSON without this field."""

    def sealed(self) -> "Record":
        return self.model_copy(update={"hash": self._own_hash()})

    def to_bytes(self) -> bytes:
        return to_json(self.model_dump(mode="json"))

    def is_whole(self) -> bool:
        return self.hash == self._own_hash()

    @property
    def paths(self) -> set[str]:
        """Every file of the repo that is ours."""
        return {NAME, CARD, *(file.path for file in self.files)}

    def _own_hash(self) -> str:
        return hash_json(self.model_dump(mode="json", exclude={"hash"}))


class Names(NamedTuple):
    """Directories of the configs of a set, and names of the files in them."""

    tokens: str
    references: dict[str, str]

    @staticmethod
    def of(manifest: Manifest, references: list[str]) -> "Names":
        tokens = f"tokens-{plain_name(manifest.tokenizer.name)}"
        return Names(tokens, {name: f"{tokens}-{name}" for name in references})


def plain_name(name: str) -> str:
    """Return the last part of a name, in characters that a config of the Hub may have.

    >>> plain_name("Qwen/Qwen3-0.6B"), plain_name("my tokenizer")
    ('Qwen3-0.6B', 'my-tokenizer')
    """
    return _ODD.sub("-", name.rstrip("/").rpartition("/")[2]).strip("-") or "tokenizer"


def parquet_name(folder: str, shard: str) -> str:
    """Return where a shard's rows are shared.

    >>> parquet_name("tokens-x", "tokens/train-00000-of-00001.arrow")
    'tokens-x/train-00000-of-00001.parquet'
    """
    return f"{folder}/{Path(shard).stem}.parquet"


def seal_files(files: dict[str, Path]) -> list[OtherFile]:
    """Return what a record says of some files, by path."""
    return [
        OtherFile(path=name, rows=None, **seal_file(path)._asdict())
        for name, path in sorted(files.items())
    ]


def parse_record(data: bytes, place: str) -> Record:
    """Read a record; raise E210 where it is not one, or not as it was written."""
    remedy = "push the build again, or name another revision"
    try:
        value: Any = orjson.loads(data)
        record = Record.model_validate(value)
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise UsageError("E210", place, f"has a {NAME} that cannot be read", remedy) from error
    if not record.is_whole():
        raise UsageError("E210", place, f"has a {NAME} that was changed or damaged", remedy)
    check_paths(Path(f"{place}/{NAME}"), record.files)
    if MANIFEST not in record.paths:
        raise UsageError("E210", place, f"has a {NAME} without a manifest", remedy)
    return record
