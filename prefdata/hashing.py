"""Hashing of integers with splitmix64, for reproducible random draws."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]


def mix(values: Numbers) -> Numbers:
    """Apply the finalizer of splitmix64 (Steele, Lea, Flood 2014), modulo 2⁶⁴: one-to-one.

    >>> [hex(n) for n in mix(np.array([1, 2], np.uint64)).tolist()]
    ['0x5692161d100b05e5', '0xdbd238973a2b148a']
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
