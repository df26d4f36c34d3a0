"""Cache of a directory's tokenizer, so that most builds need not import transformers.

The key is made of the sha256 of every small file in the directory and the versions of the two
libraries that load it: any change that could affect the result changes the key.
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
"""The only subdirectory that transformers reads for a tokenizer."""
_LIBRARIES = ("tokenizers", "transformers")
_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"})


def entry_of(folder: Path) -> Path:
    """Return the cache file of a directory's tokenizer, for its files as they are now."""
    found = [*folder.glob("*"), *folder.glob(f"{_MORE_TEMPLATES}/*")]
    files = sorted(path for path in found if path.is_file() and path.suffix not in _WEIGHTS)
    names = [
        os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace") for path in files
    ]
    digests = dict(zip(names, map(sha256_file, files), strict=True))
    versions = {name: version(name) for name in _LIBRARIES}
    return cache_folder() / "tokenizers" / f"{hash_json([digests, versions])[:32]}"


def recall(entry: Path) -> dict[str, Any] | None:
    """Return the cached value; None if it is missing or damaged."""
    try:
        digest, facts, serialized = entry.read_bytes().split(b"\n", maxsplit=2)
    except (OSError, ValueError):
        return None
    if _digest(facts, serialized) != digest:
        return None
    return {**orjson.loads(facts), SERIALIZED: serialized.decode()}


def remember(entry: Path, value: dict[str, Any]) -> None:
    """Cache a loaded tokenizer; with a full or read-only disk the next build only takes longer.

    The tokenizer's own JSON is appended as it is: as a JSON string it would be parsed twice.
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
    """Record where a tokenizer is on this machine, which builds do not contain."""
    place = str(Path(name).absolute()) if Path(name).is_dir() else name
    _write(_place_of(tokenizer_sha256), os.fsencode(place))


def _place_of(tokenizer_sha256: str) -> Path:
    return cache_folder() / "tokenizers" / f"at-{tokenizer_sha256[:32]}"


def _digest(facts: bytes, serialized: bytes) -> bytes:
    return hashlib.sha256(facts + b"\n" + serialized).hexdigest().encode()
