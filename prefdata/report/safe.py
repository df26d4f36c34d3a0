"""Text that comes from data, made harmless for terminals: no escape, control or bidi character."""

import unicodedata

_KEPT = frozenset("\n\t")


def plain(text: str, *, lines: bool = False) -> str:
    r"""The text with every control character written out; `lines` keeps line breaks and tabs.

    >>> plain("a\x1b[31mb\u202e")
    'a\\x1b[31mb\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(_shown(char, lines=lines) for char in text)


def _shown(char: str, *, lines: bool) -> str:
    if char.isprintable() or (lines and char in _KEPT):
        return char
    # Spaces of other scripts (Zs) are not "printable" to Python, but do no harm.
    if unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()
