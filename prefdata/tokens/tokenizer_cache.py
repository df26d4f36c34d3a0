"""A folder's tokenizer as it was loaded before, so that most builds need not import transformers.

What is remembered is found by the sha256 of every small file in the folder and the versions of the
two libraries that load it: whatever could change the result changes the name it is kept under.
"""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from prefdata.store.canonical import hash_json
from prefdata.store.commit import sha256_file
from prefdata.store.verify import cache_folder

SERIALIZED = "serialized"  # the key of the tokenizer's JSON
_MORE_TEMPLATES = "additional_chat_templates"
"""The one directory below its own that transformers reads of a tokenizer."""
_LIBRARIES = ("tokenizers", "transformers")
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"})


def entry_of(folder: Path) -> Path:
    """Where the tokenizer of a folder, as its files are now, is remembered."""
    found = [*folder.glob("*"), *folder.glob(f"{_MORE_TEMPLATES}/*")]
    files = sorted(path for path in found if path.is_file() and _matters(path))
    names = [
        os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace") for path in files
    ]
    digests = dict(zip(names, map(sha256_file, files), strict=True))
    versions = {name: version(name) for name in _LIBRARIES}
    return cache_folder() / "tokenizers" / f"{hash_json([digests, versions])[:32]}"


def recall(entry: Path) -> dict[str, Any] | None:
    """What is remembered, if it is whole."""
    try:
        digest, facts, serialized = entry.read_bytes().split(b"\n", maxsplit=2)
    except (OSError, ValueError):
        return None
    if _digest(facts, serialized) != digest:
        return None
    return {**orjson.loads(facts), SERIALIZED: serialized.decode()}


def remember(entry: Path, value: dict[str, Any]) -> None:
    """Keep what was loaded; a full or read-only disk only costs time at the next build.

    The tokenizer's own JSON follows as it is: as a string of JSON it would be parsed twice.
    """
    facts = orjson.dumps({key: item for key, item in value.items() if key != SERIALIZED})
    serialized = value[SERIALIZED].encode()
    _write(entry, b"\n".join((_digest(facts, serialized), facts, serialized)))


def _write(entry: Path, data: bytes) -> None:
    temporary = entry.with_name(f"{entry.name}.{os.getpid()}")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(entry)
    except OSError:
        return


def recall_place(tokenizer_sha256: str) -> str | None:
    """Return the directory or the name on the Hub that a tokenizer was last loaded from."""
    try:
        place = os.fsdecode(_place_of(tokenizer_sha256).read_bytes())
    except OSError:
        return None
    return None if place.startswith("/") and not Path(place).is_dir() else place


def remember_place(tokenizer_sha256: str, name: str) -> None:
    """Note where a tokenizer lies on this machine, which no build says."""
    place = str(Path(name).absolute()) if Path(name).is_dir() else name
    _write(_place_of(tokenizer_sha256), os.fsencode(place))


def _place_of(tokenizer_sha256: str) -> Path:
    return cache_folder() / "tokenizers" / f"at-{tokenizer_sha256[:32]}"


def _digest(facts: bytes, serialized: bytes) -> bytes:
    return hashlib.sha256(facts + b"\n" + serialized).hexdigest().encode()


def _matters(path: Path) -> bool:
    return path.suffix not in _WEIGHTS
