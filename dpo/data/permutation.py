"""Pairs of step n, as a pure function of (number of pairs, seed, n).

Position p of a run is pair `order(p mod N)` of epoch `p div N`. The order is a keyed permutation,
a Feistel network over the smallest even-width domain that holds N, walked until it lands inside.
Nothing is stored: any position of any epoch is computed independently, so a run resumes anywhere
without a list of a billion indices.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from prefdata.hashing import mix

ROUNDS = 6


def step_pairs(num_pairs: int, *, seed: int, step: int, batch: int) -> NDArray[np.int64]:
    """Return pairs of a step, counted from 1: positions [(step−1)·batch, step·batch), (batch,)."""
    positions = np.arange((step - 1) * batch, step * batch, dtype=np.int64)
    epochs, places = np.divmod(positions, num_pairs)
    pairs = np.empty(batch, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        pairs[here] = permute(places[here], num_pairs, key=f"{seed}/{epoch}")
    return pairs


def permute(places: NDArray[np.int64], size: int, *, key: str) -> NDArray[np.int64]:
    """Map each place by a keyed permutation of range(size).

    >>> sorted(permute(np.arange(10), 10, key="7/0").tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = _round_keys(key)
    image = _feistel(places.astype(np.uint64), half, keys)
    while (outside := image >= size).any():  # each walk stays on its own cycle, so it is one-to-one
        image[outside] = _feistel(image[outside], half, keys)
    return image.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & mask
    for key in keys:
        left, right = right, left ^ (mix(right + key) & mask)
    return (left << np.uint64(half)) | right


def _round_keys(key: str) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(key.encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8")
