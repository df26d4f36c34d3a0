"""Licences and sources that only some rows name, or name differently: PD606."""

import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.sets.found import SetFinding, about_rows
from prefdata.records.secrets import quote


def find_unclear_licence(frame: pl.DataFrame, _: CheckLimits) -> list[SetFinding]:
    """Find rows without a licence or source that others have; all rows if licences vary (PD606)."""
    named_licences = frame["licence"].drop_nulls().cast(pl.String)
    licences = named_licences.value_counts().sort("count", "licence", descending=[True, False])
    without = {
        name: frame.filter(pl.col(name).is_null())["at"]
        for name in ("licence", "origin")
        if frame[name].null_count() < len(frame)
    }
    missing = {name: rows for name, rows in without.items() if len(rows)}
    if len(licences) < 2 and not missing:
        return []
    parts = [
        f"{count:,} rows under {quote(name, 80)}" for name, count in licences.head(5).iter_rows()
    ] + [f"{len(rows):,} rows without {name}" for name, rows in missing.items()]
    named = pl.concat(list(missing.values())).unique() if missing else frame["at"].clear()
    rows = frame["at"] if len(licences) > 1 else named
    return about_rows("PD606", rows, ", ".join(parts))
