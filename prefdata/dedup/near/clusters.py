"""Clusters of near-duplicates, and the row kept from each."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.dedup.near.forest import Forest
from prefdata.dedup.near.overlap import SetStore
from prefdata.dedup.near.sketch import Sketch


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
