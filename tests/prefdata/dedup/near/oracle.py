"""A reference implementation of near-duplicates, with Python's sets and regular expressions."""

import gzip
import itertools
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

ALONE = r"\u0e00-\u0eff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{ALONE}]|[^\W_{ALONE}]+")
Pairs = dict[tuple[int, int], float]


def shingles(text: str, num_words: int = 5) -> frozenset[tuple[str, ...]]:
    words = WORD.findall(unicodedata.normalize("NFC", text).lower())
    count = max(len(words) - num_words + 1, min(len(words), 1))
    return frozenset(tuple(words[n : n + num_words]) for n in range(count))


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    return len(a & b) / max(len(a | b), 1)


def all_pairs(texts: Sequence[str], threshold: float, num_words: int = 5) -> Pairs:
    """Return every pair of texts at or above the threshold, by an inverted index."""
    sets = [shingles(text, num_words) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, found in enumerate(sets):
        for shingle in found:
            holders[shingle].append(row)
    common = Counter(pair for rows in holders.values() for pair in itertools.combinations(rows, 2))
    pairs = {(a, b): num / (len(sets[a]) + len(sets[b]) - num) for (a, b), num in common.items()}
    return {pair: found for pair, found in pairs.items() if found >= threshold}


def read_hh(path: Path) -> list[str]:
    """Return both dialogues of each row of an HH file."""
    with gzip.open(path, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [row[side] for row in rows for side in ("chosen", "rejected")]
