"""Conflicts and repetitions among the pairs of one prompt, or of many: PD404 to PD407.

Frames have the columns of `keys.KEYS` and `at`, the row's index in the keys.
"""

import polars as pl

from prefdata.check.limits import CheckLimits
from prefdata.check.sets.found import SetFinding, about_rows
from prefdata.records.keys import GROUP_ID

_EDGE = [*GROUP_ID, "chosen_id", "rejected_id"]


def find_cycles(frame: pl.DataFrame, _: CheckLimits) -> list[SetFinding]:
    """Find pairs that form a cycle of three or more completions (PD404).

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
    prompts = edges.select(GROUP_ID).n_unique() if len(edges) else 0
    message = f"prompts whose pairs form a cycle: {prompts:,}"
    return about_rows("PD404", edges["at"], message)


def find_frequent_prompts(frame: pl.DataFrame, limits: CheckLimits) -> list[SetFinding]:
    """Find prompts with too many pairs (PD405)."""
    sizes = frame.group_by(GROUP_ID).agg(pl.len(), pl.col("at"))
    many = sizes.filter(pl.col("len") > limits.max_pairs_per_prompt)
    most = int(many["len"].max() or 0)  # type: ignore[arg-type]
    message = f"prompts with more than {limits.max_pairs_per_prompt} pairs: {len(many):,}"
    rows = many["at"].explode() if len(many) else frame["at"].clear()
    return about_rows("PD405", rows, f"{message}; the largest has {most:,}")


def find_both_ways(frame: pl.DataFrame, _: CheckLimits) -> list[SetFinding]:
    """Find pairs whose chosen side another pair of the prompt rejects (PD406)."""
    both = frame.join(
        frame, left_on=[*GROUP_ID, "chosen_id"], right_on=[*GROUP_ID, "rejected_id"], how="semi"
    )
    message = f"chosen sides that another pair of their prompt rejects: {len(both):,}"
    return about_rows("PD406", both["at"], message)


def find_boilerplate(frame: pl.DataFrame, limits: CheckLimits) -> list[SetFinding]:
    """Find completions that answer too many different prompts (PD407)."""
    sides = [
        frame.select("at", *GROUP_ID, completion=name) for name in ("chosen_id", "rejected_id")
    ]
    prompts = pl.concat(sides).unique(["completion", *GROUP_ID])
    often = (
        prompts.group_by("completion")
        .len()
        .filter(pl.col("len") > limits.max_prompts_per_completion)
    )
    rows = frame.filter(
        pl.col("chosen_id").is_in(often["completion"].implode())
        | pl.col("rejected_id").is_in(often["completion"].implode())
    )["at"]
    most = int(often["len"].max() or 0)  # type: ignore[arg-type]
    message = (
        f"completions under more than {limits.max_prompts_per_completion} prompts: {len(often):,}"
    )
    return about_rows("PD407", rows, f"{message}; the most frequent is under {most:,}")
