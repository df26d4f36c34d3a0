"""Equal pairs: the first in the order of the inputs stays."""

import numpy as np
import polars as pl
import pyarrow as pa

from prefdata.arrays import arrow_array
from prefdata.records import RECORDS

PLACE = ("source_index", "line", "ordinal")

DUPLICATES = pa.schema(
    [
        *(RECORDS.field(name) for name in ("source", *PLACE, "pair_id")),
        pa.field("kept_source", pa.string(), nullable=False),
        pa.field("kept_line", pa.int64(), nullable=False),
        pa.field("kept_ordinal", pa.int32(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)


def drop_duplicates(records: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Kept records, and the duplicates with the pair that is kept in their stead (PD401).

    The order of the rows given does not matter for which copy stays; the kept keep their order.
    """
    frame = pl.DataFrame({name: pl.Series(records[name]) for name in PLACE}).with_columns(
        at=np.arange(records.num_rows), key=pl.Series(records["pair_id"].cast(pa.binary()))
    )
    first = frame.sort(PLACE).with_columns(kept=pl.col("at").first().over("key")).sort("at")
    is_copy = first["kept"] != first["at"]
    kept = records.filter((~is_copy).to_arrow())
    return kept, _duplicates(records, first.filter(is_copy).sort(PLACE))


def _duplicates(records: pa.Table, copies: pl.DataFrame) -> pa.Table:
    own = records.take(copies["at"].to_arrow())
    stays = records.take(copies["kept"].to_arrow())
    columns = [own[name] for name in ("source", *PLACE, "pair_id")]
    columns += [stays[name] for name in ("source", "line", "ordinal")]
    columns.append(arrow_array([1.0] * len(copies), pa.float64()))
    return pa.Table.from_arrays(columns, schema=DUPLICATES)
