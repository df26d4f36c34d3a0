"""Leaks between two splits: PD501, PD502, PD504 and PD505.

Frames have the columns of `keys.KEYS` and of PROFILE, `at`, `split` (its rank by precedence) and,
if near-duplicates were searched for, `cluster`.
"""

from collections.abc import Collection, Sequence

import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.sets.found import RowSums, SetFinding, about_rows, rows_in
from prefdata.records.keys import GROUP_ID, PAIR_ID

LEAKED = {"at": pl.UInt32, "kept": pl.UInt32, "code": pl.String}
"""A row that another split also has, the row kept there, and the code of what they share."""
SHARED: dict[str, Sequence[str]] = {"PD505": PAIR_ID, "PD501": GROUP_ID, "PD502": ("cluster",)}
"""Keys that two splits can share, strictest first; a row counts under the first one only."""
LEAK_NAMES = {
    "PD505": "pair_in_two_splits: the same pair",
    "PD501": "prompt_in_two_splits: the same prompt",
    "PD502": "near_prompt_in_two_splits: nearly the same prompt",
}


def find_leaked(frame: pl.DataFrame, codes: Collection[str]) -> pl.DataFrame:
    """Return rows of LEAKED: those that share a pair or a prompt with a split that keeps it.

    The split with the higher number keeps what both have.
    """
    found = pl.DataFrame(schema=LEAKED)
    for code, key in SHARED.items():
        if code in codes and set(key) <= set(frame.columns):
            more = _given_way(frame, key).join(found, on="at", how="anti")
            found = pl.concat([found, more.select("at", "kept", code=pl.lit(code))])
    return found.sort("at")


def _given_way(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return rows whose key a later split also has, `at`, and the first such row there, `kept`."""
    rows = frame.select("at", "split", *key)
    last = rows.sort("split", "at", descending=[True, False]).unique(
        key, keep="first", maintain_order=True
    )
    both = rows.join(last.select(*key, last="split", kept="at"), on=key)
    return both.filter(pl.col("split") < pl.col("last")).select("at", "kept")


def count_threads(frame: pl.DataFrame, _: CheckLimits) -> RowSums:
    """Count the rows of threads that are in more than one split."""
    rows = frame.filter(pl.col("thread") != 0)
    shared = rows.filter(pl.col("split").n_unique().over("thread") > 1)
    return rows_in(shared["at"], shared["thread"].n_unique() if len(shared) else 0)


def find_threads(rows: RowSums, _: CheckLimits) -> list[SetFinding]:
    """Find threads that are in more than one split (PD504)."""
    return about_rows("PD504", rows, f"threads in more than one split: {rows.groups:,}")
