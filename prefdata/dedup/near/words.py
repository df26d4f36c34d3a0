"""Hashes of words: they depend only on a word's bytes, on any machine and version."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.dedup.near.letters import BARRIER, Bytes, Offsets, read_letters
from prefdata.hashing import Numbers, mix

# A longer run of letters counts as several words, which bounds the rounds of hashing.
MOST_WORD_BYTES = 64
_LANE = 8
_MASKS: Numbers = np.array([(1 << 8 * n) - 1 for n in range(_LANE + 1)], np.uint64)


class Words(NamedTuple):
    """Words of texts, in runs that no shingle crosses."""

    hashes: Numbers
    run_ends: Offsets
    """End of each run in `hashes`."""
    run_rows: NDArray[np.int64]
    """Row of each run's text."""
    run_parts: NDArray[np.int64]
    """Number of barriers before each run in its text."""


def read_words(texts: pl.Series) -> Words:
    """Return the words of each text; a text without barriers is one run, even if it is empty."""
    letters = read_letters(texts)
    starts, stops = _bounds(letters.data)
    barriers = np.flatnonzero(letters.data == ord(BARRIER))
    run_stops = np.sort(np.concatenate([letters.ends, barriers]))
    text = np.searchsorted(letters.ends, run_stops)
    first_run = np.searchsorted(text, np.arange(len(letters.ends)))
    return Words(
        _hash_words(letters.data, starts, stops),
        np.searchsorted(starts, run_stops),
        letters.rows[text],
        np.arange(len(text)) - first_run[text],
    )


def _bounds(letters: Bytes) -> tuple[Offsets, Offsets]:
    """Return the start and stop of each word; words that are too long are cut."""
    inside = np.zeros(len(letters) + 2, np.bool_)
    np.greater(letters, 0x20, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[0::2], edges[1::2]
    pieces = -(-(stops - starts) // MOST_WORD_BYTES)
    if len(pieces) and pieces.max() > 1:
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        starts = np.repeat(starts, pieces) + number * MOST_WORD_BYTES
        stops = np.minimum(starts + MOST_WORD_BYTES, np.repeat(stops, pieces))
    return starts, stops


def _hash_words(letters: Bytes, starts: Offsets, stops: Offsets) -> Numbers:
    """Hash eight bytes at a time, little-endian and zero-padded: h ← mix(h ⊕ lane)."""
    padded = np.append(letters, np.zeros(MOST_WORD_BYTES, np.uint8))
    # At each byte, the eight bytes from it on: a view whose numbers overlap.
    lanes = np.ndarray((len(letters),), np.dtype("<u8"), padded.data, strides=(1,))
    hashes = mix(_lane_at(lanes, starts, stops - starts))
    longer = np.flatnonzero(stops - starts > _LANE)
    at = starts[longer] + _LANE
    while len(longer):
        left = stops[longer] - at
        hashes[longer] = mix(hashes[longer] ^ _lane_at(lanes, at, left))
        more = left > _LANE
        longer, at = longer[more], at[more] + _LANE
    return hashes


def _lane_at(lanes: Numbers, at: Offsets, num_bytes: Offsets) -> Numbers:
    """Return the bytes from `at` on, at most eight."""
    found: Numbers = lanes[at].astype(np.uint64, copy=False) & _MASKS[np.minimum(num_bytes, _LANE)]
    return found
