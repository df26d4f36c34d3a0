"""Near-duplicates of a whole build, from the sketches of its parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.dedup.near.clusters import choose, cluster
from prefdata.dedup.near.overlap import SetStore
from prefdata.dedup.near.pairs import find_pairs
from prefdata.dedup.near.sketch import Sketch, open_sketch


class Neighbors(NamedTuple):
    """Clusters of all rows, and paths of the sketches that give the similarity of two rows."""

    clusters: NDArray[np.uint32]
    paths: tuple[Path, ...]

    def within(self, split: NDArray[np.uint8]) -> "Neighbors":
        """Return the clusters within each split; `split` has a number for each row."""
        rows = pl.DataFrame({"cluster": self.clusters, "split": split}).with_row_index("at")
        first = rows.select(pl.col("at").first().over("cluster", "split"))["at"]
        return self._replace(clusters=first.cast(pl.UInt32).to_numpy())

    def sketches(self) -> list[Sketch]:
        """Open the sketches anew each time: while mapped, they count as memory of the process."""
        return [open_sketch(path) for path in self.paths]


def find_neighbors(paths: Sequence[Path], *, threshold: float) -> Neighbors:
    """Return the clusters of the rows of all parts, numbered across parts in their order."""
    sketches = [open_sketch(path) for path in paths]
    num_rows = sum(len(sketch.sets.ends) for sketch in sketches)
    clusters = cluster(num_rows, find_pairs(sketches, threshold=threshold))
    return Neighbors(clusters, tuple(paths))


def near_copies(
    near: Neighbors, kept_mask: NDArray[np.bool_], *, groups: pl.DataFrame | None, longest: bool
) -> pl.DataFrame:
    """Return near-duplicates among the kept rows: `at`, `kept`, `similarity`.

    If `groups` are given, the rows of one group are one text and are not copies of each other.
    """
    sketches = near.sketches()
    sizes = SetStore(sketches).sizes
    rank = pl.DataFrame(
        {"gone": ~kept_mask, "shortness": -sizes if longest else np.zeros_like(sizes)}
    )
    copies = choose(near.clusters, sketches, rank).select("kept", "similarity", at="row")
    copies = copies.filter(pl.Series(kept_mask)[copies["at"]])
    if groups is not None:
        ids = groups.to_numpy()
        copies = copies.filter((ids[copies["at"]] != ids[copies["kept"]]).any(1))
    return copies.select("at", "kept", "similarity")
