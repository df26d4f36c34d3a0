"""Events: what the decisions say of single rows, as one frame of EVENTS."""

import polars as pl

from prefdata.engine.exchange import KEY

EXCLUDED, LEAKED, CONTRADICTORY, REPORTED, COPY, NEAR = (
    "excluded", "leaked", "contradictory", "reported", "copy", "near",
)  # fmt: skip
OF_ROW = {
    "source_index": pl.Int32,
    "line": pl.Int64,
    "ordinal": pl.Int32,
    "pair_id_hi": pl.UInt64,
    "pair_id_lo": pl.UInt64,
    "split": pl.UInt8,
}
OF_KEPT = {f"kept_{name}": kind for name, kind in OF_ROW.items()}
EVENTS: dict[str, type[pl.DataType]] = {
    KEY: pl.UInt64,
    "at": pl.Int64,
    "kind": pl.String,
    "code": pl.String,
    "level": pl.String,
    "dropped": pl.Boolean,
    "similarity": pl.Float64,
    "kept": pl.Int64,
    **OF_ROW,
    **OF_KEPT,
}
"""A decision on a row: the row, and the one kept instead, or that another split has."""


def events_of(said: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return EVENTS of what is said of some rows, given by `at` and `kept`, places in `rows`."""
    if "kept" not in said.columns:
        said = said.with_columns(kept=None)
    own, kept = said["at"], said["kept"].cast(pl.UInt32)
    other = pl.select(pl.coalesce(kept, own)).to_series()
    of_row = rows.select("at", *OF_ROW)
    of_kept = of_row[other].select(
        pl.col("at").alias("kept"), *(pl.col(name).alias(f"kept_{name}") for name in OF_ROW)
    )
    plain = said.drop("at", "kept")
    found = pl.concat([of_row[own], of_kept, plain], how="horizontal")
    missing = [pl.lit(None, kind).alias(n) for n, kind in EVENTS.items() if n not in found.columns]
    found = found.with_columns(missing).with_columns(pl.col("at").cast(pl.UInt64).alias(KEY))
    return found.select(pl.col(name).cast(kind) for name, kind in EVENTS.items())
