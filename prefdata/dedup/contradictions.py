"""Pairs that prefer the same two completions of a prompt in opposite ways."""

import polars as pl
import pyarrow as pa

from prefdata.records import REJECTED
from prefdata.rejects import rejects_of


def drop_contradictions(records: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Kept records, and every pair of each contradiction as rows of REJECTED (PD403).

    Pairs of one prompt are compared whole: (x, a > b) stands against (x, b > a).
    """
    groups = pl.DataFrame({"group": pl.Series(records["group_id"].cast(pa.binary()))})
    groups = groups.with_row_index("at").filter(pl.len().over("group") > 1)
    suspects = records.take(groups["at"].to_arrow())
    sides = groups.with_columns(
        chosen=_spelled(suspects, "chosen"), rejected=_spelled(suspects, "rejected")
    )
    swapped = sides.select("group", chosen="rejected", rejected="chosen").unique()
    against = sides.join(swapped, on=["group", "chosen", "rejected"], how="semi")
    at = pl.select(pl.arange(records.num_rows).cast(pl.UInt32).alias("at"))["at"]
    refused = at.is_in(against["at"].implode())
    kept = records.filter((~refused).to_arrow())
    return kept, _refused(records.filter(refused.to_arrow()))


def _spelled(records: pa.Table, side: str) -> pl.Series:
    """A side as one text; two sides are equal when their texts are."""
    turns = pl.Series(side, records[side])
    return turns.list.eval(pl.element().struct.json_encode()).list.join("\n")


def _refused(rows: pa.Table) -> pa.Table:
    if not rows.num_rows:
        return pa.Table.from_batches([], schema=REJECTED)
    message = "contradictory_pair: another row prefers the same two completions the other way round"
    return rejects_of(rows, ["PD403"] * rows.num_rows, [message] * rows.num_rows)
