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

from prefdata.store.canonical import hash_json, to_json
from prefdata.store.commit import sha256_file
from prefdata.store.verify import cache_folder

_LIBRARIES = ("tokenizers", "transformers")
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"})


def entry_of(folder: Path) -> Path:
    """Where the tokenizer of a folder, as its files are now, is remembered."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _matters(path))
    digests = {str(path.relative_to(folder)): sha256_file(path) for path in files}
    versions = {name: version(name) for name in _LIBRARIES}
    return cache_folder() / "tokenizers" / f"{hash_json([digests, versions])[:32]}.json"


def recall(entry: Path) -> dict[str, Any] | None:
    """What is remembered, if it is whole."""
    try:
        digest, content = entry.read_bytes().split(b"\n", maxsplit=1)
    except (OSError, ValueError):
        return None
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    value: dict[str, Any] = orjson.loads(content)
    return value


def remember(entry: Path, value: dict[str, Any]) -> None:
    """Keep what was loaded; a full or read-only disk only costs time at the next build."""
    content = to_json(value)
    temporary = entry.with_name(f"{entry.name}.{os.getpid()}")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        temporary.replace(entry)
    except OSError:
        return


def _matters(path: Path) -> bool:
    return path.suffix not in _WEIGHTS
