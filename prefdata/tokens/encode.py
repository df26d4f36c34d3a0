"""Encoding of texts to ids: each distinct text once, while the next texts are rendered."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import numpy as np
from tokenizers import Encoding, Tokenizer

from prefdata.arrow import Ragged, from_lengths, stack

_BATCH_TEXTS = 512


def encode_texts(backend: Tokenizer, texts: list[str], *, add_special_tokens: bool) -> Ragged:
    """Return the ids of each text."""
    return ids_of(backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens))


def ids_of(encodings: list[Encoding]) -> Ragged:
    rows = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    values = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
    return from_lengths(values, lengths)


class TextPool:
    """Pool of distinct texts; a text gets its index at once and its ids in the background.

    The tokenizer releases the GIL, so encoding runs in parallel with rendering.
    """

    def __init__(self, encode: Callable[[list[str]], Ragged]) -> None:
        self._encode = encode
        self._places: dict[str, int] = {}
        self._waiting: list[str] = []
        self._parts: list[Future[Ragged]] = []
        self._thread = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> "TextPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def place(self, text: str) -> int:
        """Return the index that the text's ids will have in `ids()`."""
        known = self._places.get(text)
        if known is not None:
            return known
        self._places[text] = place = len(self._places)
        self._waiting.append(text)
        if len(self._waiting) >= _BATCH_TEXTS:
            self._encode_waiting()
        return place

    def ids(self) -> Ragged:
        """Return the ids of every text, in the order of their indices."""
        self._encode_waiting()
        return stack([part.result() for part in self._parts], np.int32)

    def _encode_waiting(self) -> None:
        if self._waiting:
            self._parts.append(self._thread.submit(self._encode, self._waiting))
            self._waiting = []
