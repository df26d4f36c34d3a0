"""Texts as bytes in which every run above 0x20 is a word.

A word is a run of letters, marks and digits of a text in NFC and lower case. In scripts that are
written without spaces each character is a word. BARRIER splits a text: no shingle crosses it.
"""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

BARRIER = "\x1e"
Bytes = NDArray[np.uint8]
Codes = NDArray[np.uint32]
Offsets = NDArray[np.int64]

_SPACE = 0x20
_NARROW = ord("\n"), ord(BARRIER)  # kept in addition to words
# ASCII capitals become lower case; all except letters, digits and barriers becomes spaces.
_SMALL = bytes(
    byte
    if byte >= 0x80 or byte == ord(BARRIER)
    else ord(chr(byte).lower())
    if chr(byte).isalnum()
    else _SPACE
    for byte in range(256)
)
_ALONE = np.uint32(1 << 31)  # marks a code point that is a word by itself
_UNKNOWN = np.uint32(0)
# First and last code points of scripts without spaces between words.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # 々〆〇
    (0x3021, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31F0, 0x31FF),  # more Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xA9E0, 0xA9FF),  # more Myanmar
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # more Han
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)


class Letters(NamedTuple):
    """Texts as bytes, in any order; each ends with a space."""

    data: Bytes
    ends: Offsets
    """End of each text in `data`."""
    rows: Offsets
    """Row of each text; a row occurs once, or twice with one of its two texts blank."""


def read_letters(texts: pl.Series) -> Letters:
    """Convert all texts to bytes."""
    data, ends = _buffer(texts)
    _blank_punctuation(data)
    rows = np.arange(len(texts))
    foreign = np.flatnonzero(data >= 0x80)
    if not len(foreign):
        return Letters(data, ends, rows)
    others = np.unique(np.searchsorted(ends, foreign, side="right"))
    for row in others.tolist():
        data[ends[row - 1] if row else 0 : ends[row]] = _SPACE
    more, more_ends = _buffer(pl.Series(_spaced(texts[others]), dtype=pl.String))
    return Letters(
        np.concatenate([data, more]),
        np.concatenate([ends, len(data) + more_ends]),
        np.concatenate([rows, others]),
    )


def _buffer(texts: pl.Series) -> tuple[Bytes, Offsets]:
    data = (texts + " ").rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, content = data.buffers()
    ends = np.frombuffer(offsets, np.int64)[data.offset :][: len(texts) + 1]
    letters = bytearray(bytes(content or b"")[ends[0] : ends[-1]].translate(_SMALL))
    return np.frombuffer(letters, np.uint8), ends[1:] - ends[0]


def _blank_punctuation(letters: Bytes) -> None:
    """Turn U+2000 to U+203F (E2 80 xx) into spaces: quotes and dashes, but no letters.

    Most texts that are not ASCII contain no other characters outside it.
    """
    at = np.flatnonzero((letters[:-2] == 0xE2) & (letters[1:-1] == 0x80))
    for byte in range(3):
        letters[at + byte] = _SPACE


def _spaced(texts: pl.Series) -> list[str]:
    """Return texts in NFC and lower case; spaces replace non-words and surround lone characters.

    >>> _spaced(pl.Series(["Ça, 日本!"]))
    ['ça   日  本  ']
    """
    joined = "\n".join(texts.str.replace_all("\n", " ", literal=True).to_list())
    codes = np.frombuffer(unicodedata.normalize("NFC", joined).encode("utf-32-le"), np.uint32)
    mapped = _map_codes(codes)
    alone = mapped >= _ALONE
    if alone.any():
        ends = np.cumsum(np.where(alone, 3, 1))
        wider = np.full(ends[-1], _SPACE, np.uint32)
        wider[ends - 1 - alone] = mapped & ~_ALONE
        mapped = wider
    return mapped.tobytes().decode("utf-32-le").split("\n")


def _map_codes(codes: Codes) -> Codes:
    """Map code points to lower case, marked if a word by itself; to a space if not in a word."""
    known = _known_codes()
    mapped = known[codes]
    if (mapped == _UNKNOWN).any():
        met = np.zeros(len(known), np.bool_)
        met[codes] = True
        for code in np.flatnonzero(met & (known == _UNKNOWN)).tolist():
            known[code] = _map_code(code)
        mapped = known[codes]
    return mapped


@cache
def _known_codes() -> Codes:
    """Return the cached map of the code points seen so far."""
    known = np.full(0x110000, _UNKNOWN, np.uint32)
    known[list(_NARROW)] = _NARROW
    return known


def _map_code(code: int) -> int:
    """Map one code point, by Unicode's lower case of single characters: ς becomes σ, and İ i."""
    if unicodedata.category(chr(code))[0] not in "LMN":
        return _SPACE
    small = ord("σ") if chr(code) == "ς" else ord(chr(code).lower()[0])
    alone = any(first <= code <= last for first, last in _WITHOUT_SPACES)
    return small | (int(_ALONE) if alone else 0)
