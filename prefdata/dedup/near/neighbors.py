"""Clusters of near-duplicates, and the row kept from each."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.dedup.near.overlap import Rows, SetStore
from prefdata.dedup.near.pairs import Forest


def cluster(num_rows: int, pairs: pl.DataFrame) -> NDArray[np.int64]:
    """Return each row's cluster: the smallest row connected to it by pairs `a`, `b`."""
    forest = Forest(num_rows)
    forest.join(*(pairs[name].to_numpy().astype(np.int64) for name in ("a", "b")))
    return forest.labels()


def choose(
    clusters: NDArray[np.int64], sets: SetStore, rank: pl.DataFrame | None = None
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
    similarity = sets.similarity(
        rows["row"].to_numpy().astype(np.int64), rows["kept"].to_numpy().astype(np.int64)
    )
    return rows.select("row", "cluster", "kept", similarity=pl.Series(similarity))


class Neighbors(NamedTuple):
    """Clusters of rows, and a function that returns the sets of some of the rows."""

    clusters: NDArray[np.int64]
    sets_of: Callable[[Rows], SetStore]

    def within(self, split: NDArray[np.uint8]) -> "Neighbors":
        """Return the clusters within each split; `split` has a number for each row."""
        rows = pl.DataFrame({"cluster": self.clusters, "split": split}).with_row_index("at")
        first = rows.select(pl.col("at").first().over("cluster", "split"))["at"]
        return self._replace(clusters=first.cast(pl.Int64).to_numpy())


def near_copies(
    near: Neighbors, kept_mask: NDArray[np.bool_], *, groups: pl.DataFrame | None, longest: bool
) -> pl.DataFrame:
    """Return near-duplicates among the kept rows: `at`, `kept`, `similarity`.

    If `groups` are given, the rows of one group are one text and are not copies of each other.
    """
    _, cluster, sizes = np.unique(near.clusters, return_inverse=True, return_counts=True)
    some = np.flatnonzero(sizes[cluster] > 1)
    sets = near.sets_of(some)
    shortness = -sets.sizes if longest else np.zeros_like(sets.sizes)
    rank = pl.DataFrame({"gone": ~kept_mask[some], "shortness": shortness})
    found = choose(near.clusters[some], sets, rank)
    places = {"at": some[found["row"].to_numpy()], "kept": some[found["kept"].to_numpy()]}
    copies = pl.DataFrame(places).cast(pl.UInt32).with_columns(found["similarity"])
    copies = copies.filter(pl.Series(kept_mask)[copies["at"]])
    if groups is not None:
        ids = groups.to_numpy()
        copies = copies.filter((ids[copies["at"]] != ids[copies["kept"]]).any(1))
    return copies.select("at", "kept", "similarity")
