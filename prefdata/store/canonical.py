"""Canonical JSON: equal values give equal bytes, so their hashes can be compared.

Keys are sorted, the indent is two spaces, text is UTF-8, and the last byte is a newline.
"""

import hashlib
from typing import Any

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def to_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value.

    >>> to_json({"b": 1, "a": [True, None]}).decode().split()
    ['{', '"a":', '[', 'true,', 'null', '],', '"b":', '1', '}']
    """
    return orjson.dumps(value, option=_OPTIONS)


def hash_json(value: Any) -> str:
    """Return the sha256 of a JSON value's canonical bytes, in hex.

    >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(to_json(value)).hexdigest()


def fingerprint(value: Any) -> str:
    """Return sixteen hex digits of the hash of what decides the bytes of a build or a run."""
    return hash_json(value)[:16]
