"""Clusters of near-duplicates, in a whole build too, and the row kept from each."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.dedup.near.overlap import SetStore
from prefdata.dedup.near.pairs import Forest, find_pairs
from prefdata.dedup.near.sketch import Sketch, open_sketch


def cluster(num_rows: int, pairs: pl.DataFrame) -> NDArray[np.uint32]:
    """Return each row's cluster: the smallest row connected to it by pairs `a`, `b`."""
    forest = Forest(num_rows)
    forest.join(*(pairs[name].to_numpy().astype(np.int64) for name in ("a", "b")))
    return forest.labels().astype(np.uint32)


def choose(
    clusters: NDArray[np.uint32], sketches: Sequence[Sketch], rank: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return every row that is not kept: row, cluster, kept, and their exact similarity.

    Each cluster keeps the row that sorts first by the columns of `rank`; ties, and clusters
    without `rank`, keep the earliest row.
    """
    rows = pl.DataFrame({"cluster": clusters}).with_row_index("row")
    by = [] if rank is None else rank.columns
    rows = rows if rank is None else pl.concat([rows, rank], how="horizontal")
    rows = rows.filter(pl.len().over("cluster") > 1).sort(*by, "row")
    rows = rows.with_columns(kept=pl.col("row").first().over("cluster"))
    rows = rows.filter(pl.col("kept") != pl.col("row")).sort("row")
    similarity = SetStore(sketches).similarity(
        rows["row"].to_numpy().astype(np.int64), rows["kept"].to_numpy().astype(np.int64)
    )
    return rows.select("row", "cluster", "kept", similarity=pl.Series(similarity))


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
    num_rows = sum(len(sketch.sets.offsets) - 1 for sketch in sketches)
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
