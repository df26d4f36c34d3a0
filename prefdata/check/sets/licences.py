"""Licences and sources that only some rows name, or name differently: PD606."""

import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.sets.found import RowSums, SetFinding, about_rows, rows_in
from prefdata.check.sets.tally import Tally
from prefdata.records.secrets import quote


def find_unclear_licence(tally: Tally, _: CheckLimits) -> list[SetFinding]:
    """Find rows without a licence or source that others have; all rows if licences vary (PD606)."""
    by_name = tally.names.drop_nulls("licence").group_by("licence").agg(pl.col("num").sum())
    licences = by_name.sort("num", "licence", descending=[True, False])
    without = {name: tally.names.filter(pl.col(name).is_null()) for name in ("licence", "origin")}
    missing = {name: int(rows["num"].sum()) for name, rows in without.items() if len(rows)}
    missing = {name: num for name, num in missing.items() if num < tally.rows}
    if len(licences) < 2 and not missing:
        return []
    parts = [
        f"{count:,} rows under {quote(name, 80)}" for name, count in licences.head(5).iter_rows()
    ] + [f"{num:,} rows without {name}" for name, num in missing.items()]
    lacks = pl.any_horizontal(pl.col(name).is_null() for name in missing) if missing else False
    named = tally.names if len(licences) > 1 else tally.names.filter(lacks)
    return about_rows("PD606", _rows(named), ", ".join(parts))


def _rows(names: pl.DataFrame) -> RowSums:
    return rows_in(names["at"].explode())._replace(num=int(names["num"].sum()))
