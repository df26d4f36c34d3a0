"""Escaping of text that comes from data: no escape, control or bidi character."""

import re
import unicodedata
from typing import Any

import yaml

_KEPT = frozenset("\n\t")
_JOINERS = frozenset("\u200c\u200d")  # of emoji and Indic scripts; they change no direction


def plain(text: str, *, lines: bool = False) -> str:
    r"""Return the text with control characters escaped; `lines` keeps line breaks and tabs.

    >>> plain("a\x1b[31mb\u202e")
    'a\\x1b[31mb\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(_shown(char, lines=lines) for char in text)


def _shown(char: str, *, lines: bool) -> str:
    if char.isprintable() or char in _JOINERS or (lines and char in _KEPT):
        return char
    # Spaces of other scripts (Zs) are not "printable" to Python, but are harmless.
    if unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


_END = r"[^\s'\",;&]+"
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), "***"),  # user:password@ of a URL
    (re.compile(r"\bhf_[A-Za-z0-9]{10,}"), "hf_***"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?)" + _END), r"\1***"),
    (re.compile(r"(?i)\b(bearer\s+)[^\s'\",;]{8,}"), r"\1***"),
    (re.compile(r"(?i)([?&;][\w-]*(?:token|secret|signature|password|key|sig)=)" + _END), r"\1***"),
)
_HINT = re.compile(r"(?i)://|hf_|bearer|authorization|[?&;]\S*=")


def without_secrets(text: str) -> str:
    """Mask passwords and access tokens of URLs, headers and the Hub.

    >>> without_secrets("https://me:hf_abcdefghijkl@hub.co/m?token=abc&x=1")
    'https://***@hub.co/m?token=***&x=1'
    """
    if _HINT.search(text):
        for pattern, mask in _SECRETS:
            text = pattern.sub(mask, text)
    return text


def yaml_text(value: Any, *, sort_keys: bool) -> str:
    r"""Return a value as YAML that reads back equal; in ASCII if it contains unsafe characters.

    >>> yaml_text({"a": "\u202e", "b": "é"}, sort_keys=True)
    'a: "\\u202E"\nb: "\\xE9"\n'
    """
    text = yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=True)
    if plain(text, lines=True) == text:
        return text
    return yaml.safe_dump(value, sort_keys=sort_keys, allow_unicode=False)
