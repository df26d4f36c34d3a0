"""Canonical JSON: equal values give equal bytes, so their hashes can be compared.

Keys are sorted, the indent is two spaces, text is UTF-8, and the last byte is a newline.
"""

import hashlib
from typing import Any, Self

import orjson
from pydantic import BaseModel, Field

from prefdata.settings import StrictModel

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def to_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value or a model.

    >>> to_json({"b": 1, "a": [True, None]}).decode().split()
    ['{', '"a":', '[', 'true,', 'null', '],', '"b":', '1', '}']
    """
    return orjson.dumps(value, default=_dump, option=_OPTIONS)


def _dump(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)


def hash_json(value: Any) -> str:
    """Return the sha256 of a JSON value's canonical bytes, in hex.

    >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(to_json(value)).hexdigest()


def fingerprint(value: Any) -> str:
    """Return sixteen hex digits of the hash of what decides the bytes of a build or a run."""
    return hash_json(value)[:16]


def own_hash(value: dict[str, Any]) -> str:
    """Return the hash of a value without its key `hash`."""
    return hash_json({name: item for name, item in value.items() if name != "hash"})


class Sealed(StrictModel):
    """Model of a JSON file that contains its own hash."""

    hash: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of this file's canonical JSON without this field."""

    def sealed(self) -> Self:
        """Return the same model with its own hash in it."""
        return self.model_copy(update={"hash": self.own_hash()})

    def own_hash(self) -> str:
        return own_hash(self.model_dump(mode="json"))

    def is_whole(self) -> bool:
        """Return whether the hash in the file matches its content."""
        return self.hash == self.own_hash()

    def to_bytes(self) -> bytes:
        return to_json(self)
