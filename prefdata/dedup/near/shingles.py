"""Sets of shingles of texts: hashes of consecutive words, sorted and distinct.

A run of fewer words than a shingle has is one shingle; a text without words has none.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.dedup.near.letters import Offsets
from prefdata.dedup.near.words import Words, read_words
from prefdata.hashing import Numbers, mix

SHINGLE_BITS = 52
BLOCK_SETS = 1 << (64 - SHINGLE_BITS)
"""Maximum number of sets sorted together: a shingle's free bits contain its set's number."""
_SHIFT = np.uint64(SHINGLE_BITS)
_MASK = np.uint64((1 << SHINGLE_BITS) - 1)
_BLOCK_BYTES = 1 << 20  # size of a block, so that it stays in a core's cache
_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / the golden ratio, odd
_NO_WORD = np.uint64(0xD1B54A32D192ED03)  # padding for the words that a short run lacks


class Sets(NamedTuple):
    """Ragged sets of shingles, each sorted and distinct; a shingle has SHINGLE_BITS bits."""

    shingles: Numbers
    ends: Offsets
    """End of each set in `shingles`."""


def shingle_blocks(texts: pl.Series, *, num_words: int) -> Iterator[Sets]:
    """Yield the sets of all texts in their order, in blocks of whole texts.

    The cuts between blocks depend on the neighboring texts; the sets do not.
    """
    number = np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64) // _BLOCK_BYTES
    cuts = np.flatnonzero(np.diff(number, prepend=-1))
    cuts = np.unique(np.concatenate([cuts, np.arange(0, len(texts), BLOCK_SETS)]))
    for start, stop in zip(cuts, np.append(cuts[1:], len(texts)), strict=False):
        yield shingle_sets(texts[int(start) : int(stop)], num_words=num_words)


def shingle_sets(texts: pl.Series, *, num_words: int) -> Sets:
    """Return the set of each text of a block of at most BLOCK_SETS texts."""
    assert len(texts) <= BLOCK_SETS
    words = read_words(texts)
    sizes = np.diff(words.run_ends, prepend=0)
    numbers = np.where(sizes < num_words, np.minimum(sizes, 1), sizes + 1 - num_words)
    hashes = _chain(words, sizes, num_words)[_first_of_each(words.run_ends - sizes, numbers)]
    if words.run_parts.any():
        hashes += np.repeat(words.run_parts.astype(np.uint64) * _STEP, numbers)
    rows = np.repeat(words.run_rows.astype(np.uint64) << _SHIFT, numbers)
    marked = np.sort((mix(hashes) >> np.uint64(64 - SHINGLE_BITS)) | rows)
    marked = marked[np.diff(marked, prepend=~marked[:1]) != 0]
    ends = np.cumsum(np.bincount((marked >> _SHIFT).astype(np.int64), minlength=len(texts)))
    return Sets(marked & _MASK, ends)


def _first_of_each(starts: Offsets, numbers: Offsets) -> Offsets:
    """Return the first indices of each run: starts 0 and 10, numbers 2 and 3 give 0 1 10 11 12."""
    within = np.arange(numbers.sum(), dtype=np.int64)
    found: Offsets = within + np.repeat(starts - (np.cumsum(numbers) - numbers), numbers)
    return found


def _chain(words: Words, sizes: Offsets, num_words: int) -> Numbers:
    """Return, for each word, Σ hashₖ · STEPⁿ⁻¹⁻ᵏ over it and the n - 1 after it, modulo 2⁶⁴."""
    num = len(words.hashes)
    padded = np.append(words.hashes, np.full(num_words, _NO_WORD))
    chained = padded[:num].copy()
    for word in range(1, num_words):
        chained *= _STEP
        chained += padded[word : word + num]
    short = np.flatnonzero((sizes > 0) & (sizes < num_words))
    starts, sizes = words.run_ends[short] - sizes[short], sizes[short]
    total = np.zeros(len(short), np.uint64)
    for word in range(num_words):
        total = total * _STEP + np.where(word < sizes, padded[starts + word], _NO_WORD)
    chained[starts] = total
    return chained


def overlap(a: Sets, b: Sets) -> NDArray[np.int64]:
    """Count the shingles that the sets of each row have in common; at most BLOCK_SETS rows.

    Both are sorted by row and shingle, so a stable sort of one after the other merges them.
    """
    merged = np.sort(np.concatenate([_marked(a), _marked(b)]), kind="stable")
    common = merged[1:][merged[1:] == merged[:-1]]
    return np.bincount((common >> _SHIFT).astype(np.int64), minlength=len(a.ends))


def _marked(sets: Sets) -> Numbers:
    """Return the shingles with the number of their set in the free bits."""
    sizes = np.diff(sets.ends, prepend=0)
    return sets.shingles | np.repeat(np.arange(len(sizes), dtype=np.uint64) << _SHIFT, sizes)


def take_sets(sets: Sets, rows: NDArray[np.int64]) -> Sets:
    """Return the sets of the given rows, in their order."""
    ends = sets.ends[rows]
    sizes = ends - np.where(rows > 0, sets.ends[rows - 1], 0)
    return Sets(sets.shingles[_first_of_each(ends - sizes, sizes)], np.cumsum(sizes))
