"""Text that comes from data, made harmless: no escape, control or bidi character."""

import unicodedata
from typing import Any

import yaml

_KEPT = frozenset("\n\t")
_JOINERS = frozenset("\u200c\u200d")  # of emoji and Indic scripts; they change no direction


def plain(text: str, *, lines: bool = False) -> str:
    r"""The text with every control character written out; `lines` keeps line breaks and tabs.

    >>> plain("a\x1b[31mb\u202e")
    'a\\x1b[31mb\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(_shown(char, lines=lines) for char in text)


def _shown(char: str, *, lines: bool) -> str:
    if char.isprintable() or char in _JOINERS or (lines and char in _KEPT):
        return char
    # Spaces of other scripts (Zs) are not "printable" to Python, but do no harm.
    if unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


def yaml_text(value: Any, *, sort_keys: bool) -> str:
    r"""A value as YAML that reads back as the same; in ASCII where it holds what is not harmless.

    >>> yaml_text({"a": "\u202e", "b": "é"}, sort_keys=True)
    'a: "\\u202E"\nb: "\\xE9"\n'
    """
    text = yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=True)
    if plain(text, lines=True) == text:
        return text
    return yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=False)
