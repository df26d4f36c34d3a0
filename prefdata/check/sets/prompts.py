"""Preferences among the pairs of one prompt, or of many: PD404 to PD407.

Frames have the columns of `keys.KEYS` and `at`, the row's index in the keys. They are counted for
a part of the set that has all pairs of its prompts, and the sums of all parts give the findings.
"""

import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.sets.found import RowSums, SetFinding, about_rows, rows_in
from prefdata.records.keys import GROUP_ID

_EDGE = [*GROUP_ID, "chosen_id", "rejected_id"]


def count_cycles(frame: pl.DataFrame, _: CheckLimits) -> RowSums:
    """Count the pairs that form a cycle of three or more completions.

    A pair is not part of a cycle if its chosen side is nowhere rejected, or its rejected side
    nowhere chosen. Removing such pairs until none is left gives the cycles and the paths between
    them. Cycles of two are contradictions (PD403).
    """
    edges = frame.select("at", *_EDGE)
    swapped = edges.select(*GROUP_ID, chosen_id="rejected_id", rejected_id="chosen_id")
    edges = edges.join(swapped, on=_EDGE, how="anti")
    before = -1
    while len(edges) != before:
        before = len(edges)
        for one, other in (("chosen_id", "rejected_id"), ("rejected_id", "chosen_id")):
            edges = edges.join(
                edges, left_on=[*GROUP_ID, one], right_on=[*GROUP_ID, other], how="semi"
            )
    return rows_in(edges["at"], edges.select(GROUP_ID).n_unique() if len(edges) else 0)


def find_cycles(rows: RowSums, _: CheckLimits) -> list[SetFinding]:
    """Find pairs that form a cycle of three or more completions (PD404)."""
    return about_rows("PD404", rows, f"prompts whose pairs form a cycle: {rows.groups:,}")


def count_frequent_prompts(frame: pl.DataFrame, limits: CheckLimits) -> RowSums:
    """Count the pairs of prompts with too many pairs."""
    sizes = frame.group_by(GROUP_ID).agg(pl.len(), pl.col("at"))
    many = sizes.filter(pl.col("len") > limits.max_pairs_per_prompt)
    rows = many["at"].explode() if len(many) else frame["at"].clear()
    return rows_in(rows, len(many), int(many["len"].max() or 0))  # type: ignore[arg-type]


def find_frequent_prompts(rows: RowSums, limits: CheckLimits) -> list[SetFinding]:
    """Find prompts with too many pairs (PD405)."""
    message = f"prompts with more than {limits.max_pairs_per_prompt} pairs: {rows.groups:,}"
    return about_rows("PD405", rows, f"{message}; the largest has {rows.most:,}")


def count_both_ways(frame: pl.DataFrame, _: CheckLimits) -> RowSums:
    """Count the pairs whose chosen side another pair of the prompt rejects."""
    both = frame.join(
        frame, left_on=[*GROUP_ID, "chosen_id"], right_on=[*GROUP_ID, "rejected_id"], how="semi"
    )
    return rows_in(both["at"])


def find_both_ways(rows: RowSums, _: CheckLimits) -> list[SetFinding]:
    """Find pairs whose chosen side another pair of the prompt rejects (PD406)."""
    message = f"chosen sides that another pair of their prompt rejects: {rows.num:,}"
    return about_rows("PD406", rows, message)


def completions_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Return both completions of every pair: `completion`, `at` and the prompt's GROUP_ID."""
    sides = [
        frame.select("at", *GROUP_ID, completion=name) for name in ("chosen_id", "rejected_id")
    ]
    return pl.concat(sides)


def frequent_completions(sides: pl.DataFrame, limits: CheckLimits) -> tuple[pl.Series, RowSums]:
    """Return the rows of completions that answer too many prompts, and the completions' sums.

    `sides` has all rows of its completions. A row may be named twice, by both of its sides.
    """
    prompts = sides.unique(["completion", *GROUP_ID]).group_by("completion").len()
    often = prompts.filter(pl.col("len") > limits.max_prompts_per_completion)
    rows = sides.join(often, on="completion", how="semi")["at"]
    most = int(often["len"].max() or 0)  # type: ignore[arg-type]
    return rows, RowSums(0, (), len(often), most)


def find_boilerplate(rows: RowSums, limits: CheckLimits) -> list[SetFinding]:
    """Find completions that answer too many different prompts (PD407)."""
    message = (
        f"completions under more than {limits.max_prompts_per_completion} prompts: {rows.groups:,}"
    )
    return about_rows("PD407", rows, f"{message}; the most frequent is under {rows.most:,}")
