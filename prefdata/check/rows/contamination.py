"""Rows that contain text of a named evaluation file: PD503.

A text overlaps an item of the file when it has a run of 13 of its words, as GPT-3 counted it
(arXiv 2005.14165, appendix C), or 70 % of its 8-word runs, as PaLM did (arXiv 2204.02311,
section 8); an item of 4 to 7 words only when it is the whole text. Runs that more than ten items
share are ignored: they belong to the file's instructions, not to an item.

Words are runs of letters and digits in lower case; punctuation and spaces do not count. Their
hashes are stable only within one process.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.arrow import Ragged, from_lengths, positions, take
from prefdata.hashing import Numbers, chain, mix
from prefdata.read import Limits, OpenFile, expand_inputs
from prefdata.read.faults import RowError
from prefdata.read.files.formats import read_rows
from prefdata.read.files.jsonl import Tally

LONG, SHORT = 13, 8
COVERAGE = 0.7
LEAST_WORDS = 4
MAX_ITEMS = 10


class Evaluation(NamedTuple):
    """Index of the word runs of every item in the evaluation files."""

    long: Numbers
    """Runs of 13 words, sorted."""
    short: pl.DataFrame
    """`run`, `item`, `num`: 8-word runs, and the number of different ones in the item."""
    whole: dict[int, Numbers]
    """Items of 4 to 7 words, by their number of words, sorted."""


@lru_cache(maxsize=2)
def read_evaluation(files: tuple[str, ...]) -> Evaluation:
    """Load and index the texts of files (JSON Lines, JSON, CSV, Parquet, Arrow, or .txt lines)."""
    items = [text for file in expand_inputs(files) for text in _texts_of(OpenFile(file, Limits()))]
    return index_items(pl.Series(items, dtype=pl.String).unique(maintain_order=True))


def index_items(items: pl.Series) -> Evaluation:
    """Build the index over texts, each an item."""
    words = _words_of(items)
    long, short = _distinct(_runs_of(words, LONG)), _distinct(_runs_of(words, SHORT))
    whole = {n: _whole(words, n) for n in range(LEAST_WORDS, SHORT)}
    return Evaluation(
        long["run"].unique().sort().to_numpy(),
        short.with_columns(num=pl.len().over("item")),
        {n: np.unique(whole_runs) for n, (whole_runs, _) in whole.items()},
    )


def _distinct(runs: Ragged) -> pl.DataFrame:
    """Return runs and their items, without runs that many items share."""
    found = pl.DataFrame({"run": runs.values, "item": runs.owners}).unique(maintain_order=True)
    return found.filter(pl.len().over("run") <= MAX_ITEMS)


def _whole(words: Ragged, n: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Return the hashes of the texts of exactly n words, and their indices."""
    texts = np.flatnonzero(words.lengths == n)
    return _runs_of(take(words, texts), n).values, texts


def overlaps(texts: pl.Series, evaluation: Evaluation) -> NDArray[np.bool_]:
    """Return a mask of the texts that overlap an item, (texts,)."""
    words = _words_of(texts)
    found = np.zeros(len(texts), np.bool_)
    long = _runs_of(words, LONG)
    found[long.owners[_is_in(long.values, evaluation.long)]] = True
    found[_covering(_runs_of(words, SHORT), evaluation.short)] = True
    for n, known in evaluation.whole.items():
        whole_runs, of_whole = _whole(words, n)
        found[of_whole[_is_in(whole_runs, known)]] = True
    return found


def _is_in(values: Numbers, known: Numbers) -> NDArray[np.bool_]:
    """Return a mask of the values that are in a sorted array."""
    at = np.searchsorted(known, values)
    found: NDArray[np.bool_] = np.append(known, np.uint64(0))[at] == values
    return found & (at < len(known))


def _words_of(texts: pl.Series) -> Ragged:
    lists = texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    words = lists.explode().drop_nulls()
    return from_lengths(words.hash().to_numpy(), lists.list.len().cast(pl.Int64).to_numpy())


def _runs_of(words: Ragged, n: int) -> Ragged:
    """Return the hashes of the runs of n words within each text."""
    counts = np.maximum(words.lengths - n + 1, 0)
    chained = chain(words.values, n)
    return from_lengths(mix(chained[positions(words.offsets[:-1], counts)]), counts)


def _covering(runs: Ragged, short: pl.DataFrame) -> NDArray[np.int64]:
    """Return the texts that have at least COVERAGE of an item's 8-word runs."""
    met = pl.DataFrame({"run": runs.values, "text": runs.owners}).unique()
    shared = met.join(short, on="run").group_by("text", "item").agg(pl.len(), pl.first("num"))
    return shared.filter(pl.col("len") >= COVERAGE * pl.col("num"))["text"].unique().to_numpy()


def _texts_of(file: OpenFile) -> Iterator[str]:
    is_plain = file.file.path.suffix == ".txt"
    for block in file:
        for _, _, raw, value in read_rows(block, file.limits, Tally()):
            if is_plain and raw is not None:
                yield raw.decode("utf-8", "replace")
            elif not isinstance(value, RowError):
                yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)
