"""Connected rows: union-find over arrays."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Forest:
    """Trees of rows; the root of a tree is its smallest row."""

    def __init__(self, num_rows: int) -> None:
        self._parents = np.arange(num_rows)

    def roots(self, rows: Rows) -> Rows:
        """Return the root of each row's tree: the smallest row connected to it."""
        roots = self._parents[rows]
        while True:
            above = self._parents[roots]
            if (above == roots).all():
                break
            roots = above
        self._parents[rows] = roots
        return roots

    def join(self, a: Rows, b: Rows) -> None:
        """Union the two rows of each pair; the result does not depend on their order."""
        while len(a):
            roots_a, roots_b = self.roots(a), self.roots(b)
            apart = roots_a != roots_b
            a, b = roots_a[apart], roots_b[apart]
            np.minimum.at(self._parents, np.maximum(a, b), np.minimum(a, b))

    def labels(self) -> Rows:
        return self.roots(np.arange(len(self._parents)))
