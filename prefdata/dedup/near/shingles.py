"""Sets of shingles of texts: hashes of consecutive words, sorted and distinct.

A run of fewer words than a shingle has is one shingle; a text without words has none. Hashes
depend only on the bytes of the words, on any machine and version.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from prefdata.arrow import Int64s, Ragged, from_lengths, positions
from prefdata.dedup.near.letters import BARRIER, Bytes, read_letters
from prefdata.hashing import STEP, Numbers, chain, mix

SHINGLE_BITS = 52
BLOCK_SETS = 1 << (64 - SHINGLE_BITS)
"""Maximum number of sets sorted together: a shingle's free bits contain its set's number."""
_SHIFT = np.uint64(SHINGLE_BITS)
_MASK = np.uint64((1 << SHINGLE_BITS) - 1)
_BLOCK_BYTES = 1 << 20  # size of a block, so that it stays in a core's cache
_NO_WORD = np.uint64(0xD1B54A32D192ED03)  # padding for the words that a short run lacks

# A longer run of letters counts as several words, which bounds the rounds of hashing.
MOST_WORD_BYTES = 64
_LANE = 8
_MASKS: Numbers = np.array([(1 << 8 * n) - 1 for n in range(_LANE + 1)], np.uint64)


class Words(NamedTuple):
    """Words of texts, in runs that no shingle crosses."""

    runs: Ragged
    """Hashes of the words of each run."""
    rows: Int64s
    """Row of each run's text."""
    parts: Int64s
    """Number of barriers before each run in its text."""


def read_words(texts: pl.Series) -> Words:
    """Return the words of each text; a text without barriers is one run, even if it is empty."""
    letters = read_letters(texts)
    starts, stops = _bounds(letters.data)
    barriers = np.flatnonzero(letters.data == ord(BARRIER))
    run_stops = np.sort(np.concatenate([letters.ends, barriers]))
    text = np.searchsorted(letters.ends, run_stops)
    first_run = np.searchsorted(text, np.arange(len(letters.ends)))
    run_ends = np.searchsorted(starts, run_stops)
    return Words(
        Ragged(_hash_words(letters.data, starts, stops), np.append(0, run_ends)),
        letters.rows[text],
        np.arange(len(text)) - first_run[text],
    )


def _bounds(letters: Bytes) -> tuple[Int64s, Int64s]:
    """Return the start and stop of each word; words that are too long are cut."""
    inside = np.zeros(len(letters) + 2, np.bool_)
    np.greater(letters, 0x20, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, stops = edges[0::2], edges[1::2]
    pieces = -(-(stops - starts) // MOST_WORD_BYTES)
    if len(pieces) and pieces.max() > 1:
        number = positions(np.zeros_like(pieces), pieces)
        starts = np.repeat(starts, pieces) + number * MOST_WORD_BYTES
        stops = np.minimum(starts + MOST_WORD_BYTES, np.repeat(stops, pieces))
    return starts, stops


def _hash_words(letters: Bytes, starts: Int64s, stops: Int64s) -> Numbers:
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


def _lane_at(lanes: Numbers, at: Int64s, num_bytes: Int64s) -> Numbers:
    """Return the bytes from `at` on, at most eight."""
    found: Numbers = lanes[at].astype(np.uint64, copy=False) & _MASKS[np.minimum(num_bytes, _LANE)]
    return found


def blocks_of(sizes: Int64s, most: int) -> list[slice]:
    """Split rows into blocks of about `most` in size, and at most BLOCK_SETS rows."""
    number = np.cumsum(sizes, dtype=np.int64) // most
    cuts = np.flatnonzero(np.diff(number, prepend=-1))
    cuts = np.union1d(cuts, np.arange(0, len(sizes), BLOCK_SETS)).tolist()
    return [slice(*ends) for ends in zip(cuts, [*cuts[1:], len(sizes)], strict=False)]


def shingle_blocks(texts: pl.Series, *, num_words: int) -> Iterator[Ragged]:
    """Yield the sets of all texts in their order, in blocks of whole texts.

    The cuts between blocks depend on the neighboring texts; the sets do not.
    """
    for block in blocks_of(texts.str.len_bytes().to_numpy(), _BLOCK_BYTES):
        yield shingle_sets(texts[block], num_words=num_words)


def shingle_sets(texts: pl.Series, *, num_words: int) -> Ragged:
    """Return the set of each text of a block of at most BLOCK_SETS texts.

    Each set is sorted and distinct; a shingle has SHINGLE_BITS bits.
    """
    assert len(texts) <= BLOCK_SETS
    words = read_words(texts)
    sizes = words.runs.lengths
    numbers = np.where(sizes < num_words, np.minimum(sizes, 1), sizes + 1 - num_words)
    hashes = _chain(words.runs, num_words)[positions(words.runs.offsets[:-1], numbers)]
    if words.parts.any():
        hashes += np.repeat(words.parts.astype(np.uint64) * STEP, numbers)
    rows = np.repeat(words.rows.astype(np.uint64) << _SHIFT, numbers)
    marked = np.sort((mix(hashes) >> np.uint64(64 - SHINGLE_BITS)) | rows)
    marked = marked[np.diff(marked, prepend=~marked[:1]) != 0]
    counts = np.bincount((marked >> _SHIFT).astype(np.int64), minlength=len(texts))
    return from_lengths(marked & _MASK, counts)


def _chain(runs: Ragged, num_words: int) -> Numbers:
    """Return a hash for each word: of it and the n - 1 after it, or of its run if that is short."""
    padded = np.append(runs.values, np.full(num_words, _NO_WORD))
    chained = chain(padded[:-1], num_words)
    sizes = runs.lengths
    short = np.flatnonzero((sizes > 0) & (sizes < num_words))
    starts, sizes = runs.offsets[short], sizes[short]
    total = np.zeros(len(short), np.uint64)
    for word in range(num_words):
        total = total * STEP + np.where(word < sizes, padded[starts + word], _NO_WORD)
    chained[starts] = total
    return chained


def overlap(a: Ragged, b: Ragged) -> Int64s:
    """Count the shingles that the sets of each row have in common; at most BLOCK_SETS rows.

    Both are sorted by row and shingle, so a stable sort of one after the other merges them.
    """
    merged = np.sort(np.concatenate([_marked(a), _marked(b)]), kind="stable")
    common = merged[1:][merged[1:] == merged[:-1]]
    return np.bincount((common >> _SHIFT).astype(np.int64), minlength=len(a.offsets) - 1)


def _marked(sets: Ragged) -> Numbers:
    """Return the shingles with the number of their set in the free bits."""
    numbers = np.arange(len(sets.offsets) - 1, dtype=np.uint64) << _SHIFT
    marked: Numbers = np.bitwise_or(sets.values, np.repeat(numbers, sets.lengths))
    return marked
