"""Hashing of integers and of runs of them: equal on any machine, for draws and for n-grams."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
STEP = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / the golden ratio, odd


def mix(values: Numbers) -> Numbers:
    """Apply the finalizer of splitmix64 (Steele, Lea, Flood 2014), modulo 2⁶⁴: one-to-one.

    >>> [hex(n) for n in mix(np.array([1, 2], np.uint64)).tolist()]
    ['0x5692161d100b05e5', '0xdbd238973a2b148a']
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def chain(hashes: Numbers, num: int) -> Numbers:
    """Return Σ hashₖ · STEPⁿ⁻¹⁻ᵏ, modulo 2⁶⁴, of each run of n = `num` consecutive hashes."""
    num_runs = max(len(hashes) - num + 1, 0)
    chained = hashes[:num_runs].copy()
    for place in range(1, num):
        chained *= STEP
        chained += hashes[place : place + num_runs]
    return chained
