"""Near-duplicates of a whole build, out of the sketches of its parts."""

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
    """The clusters of all rows, and where the sketches lie that know how similar two rows are."""

    clusters: NDArray[np.uint32]
    paths: tuple[Path, ...]

    def within(self, split: NDArray[np.uint8]) -> "Neighbors":
        """The clusters of each split by itself; `split` has a number for each row."""
        rows = pl.DataFrame({"cluster": self.clusters, "split": split}).with_row_index("at")
        first = rows.select(pl.col("at").first().over("cluster", "split"))["at"]
        return self._replace(clusters=first.cast(pl.UInt32).to_numpy())

    def sketches(self) -> list[Sketch]:
        """Opened anew: what lies mapped counts as memory of the process for as long as it does."""
        return [open_sketch(path) for path in self.paths]


def find_neighbors(paths: Sequence[Path], *, threshold: float) -> Neighbors:
    """The clusters of the rows of all parts, counted through them in their order."""
    sketches = [open_sketch(path) for path in paths]
    num_rows = sum(len(sketch.sets.ends) for sketch in sketches)
    clusters = cluster(num_rows, find_pairs(sketches, threshold=threshold))
    return Neighbors(clusters, tuple(paths))


def near_copies(
    near: Neighbors, kept_mask: NDArray[np.bool_], *, groups: pl.DataFrame | None, longest: bool
) -> pl.DataFrame:
    """Rows that are near another one, among those that stay: `at`, `kept`, `similarity`.

    Rows of one group, where `groups` are told, are one text, and so stay or go together.
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
