"""`prefdata.json` of a shared set: the files of a push in the repo, with their hashes.

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
from typing import Literal, NamedTuple

from pydantic import ValidationError

from prefdata.errors import UsageError
from prefdata.store.canonical import Sealed
from prefdata.store.commit import seal_file
from prefdata.store.manifest import NAME as MANIFEST
from prefdata.store.manifest import Manifest, OtherFile, check_paths

NAME, CARD = "prefdata.json", "README.md"
_ODD = re.compile(r"[^\w.+-]+", re.ASCII)


class Record(Sealed):
    """Record of a shared build: its files in the repo, and their hashes."""

    format: Literal["prefdata-shared"] = "prefdata-shared"
    format_version: Literal[1] = 1
    tool_version: str
    manifest_hash: str
    """Hash of the build's manifest."""
    content_hash: str
    """Content hash of the build: hash of what is trained on."""
    tokens: str
    """Directory of the token ids."""
    references: dict[str, str]
    """Directory of the token ids with each reference's log-probs, by the reference's name."""
    files: list[OtherFile]
    """Files of the set, sorted by path; all except this record and the card."""

    @property
    def paths(self) -> set[str]:
        """Return the names of all files of the push, with the record and the card."""
        return {NAME, CARD, *(file.path for file in self.files)}


class Names(NamedTuple):
    """Directories of the configs of a set."""

    tokens: str
    references: dict[str, str]

    @staticmethod
    def of(manifest: Manifest, references: list[str]) -> "Names":
        tokens = f"tokens-{plain_name(manifest.tokenizer.name)}"
        return Names(tokens, {name: f"{tokens}-{name}" for name in references})


def plain_name(name: str) -> str:
    """Return the last part of a name, in characters that are allowed in a config of the Hub.

    >>> plain_name("Qwen/Qwen3-0.6B"), plain_name("my tokenizer")
    ('Qwen3-0.6B', 'my-tokenizer')
    """
    return _ODD.sub("-", name.rstrip("/").rpartition("/")[2]).strip("-") or "tokenizer"


def parquet_name(folder: str, shard: str) -> str:
    """Return the name of a shard's Parquet file in the repo.

    >>> parquet_name("tokens-x", "tokens/train-00000-of-00001.arrow")
    'tokens-x/train-00000-of-00001.parquet'
    """
    return f"{folder}/{Path(shard).stem}.parquet"


def seal_files(files: dict[str, Path]) -> list[OtherFile]:
    """Return the entries of files for a record, sorted by path."""
    return [
        OtherFile(path=name, rows=None, **seal_file(path)._asdict())
        for name, path in sorted(files.items())
    ]


def parse_record(data: bytes, place: str) -> Record:
    """Parse a record; raise E210 if it is not one, or was changed."""
    remedy = "push the build again, or name another revision"
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        raise UsageError("E210", place, f"has a {NAME} that cannot be read", remedy) from error
    if not record.is_whole():
        raise UsageError("E210", place, f"has a {NAME} that was changed or damaged", remedy)
    check_paths(Path(f"{place}/{NAME}"), record.files)
    if MANIFEST not in record.paths:
        raise UsageError("E210", place, f"has a {NAME} without a manifest", remedy)
    return record
