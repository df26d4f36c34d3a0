"""Which records stay, and why the others do not: decided on keys, without their texts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check import CHECKS
from prefdata.dedup import find_contradictions, find_copies
from prefdata.store.manifest import FunnelStage

CONTRADICTION = "contradictory_pair: another row prefers the same two completions the other way"


class Decision(NamedTuple):
    """The fate of every record, by its place in the keys."""

    stays: NDArray[np.bool_]
    copies: pl.DataFrame
    """`at` and `kept`: the pairs that are there already."""
    contradictory: pl.Series
    """Places of pairs that are refused for PD403."""
    reported: dict[str, pl.Series]
    """Places of pairs that stay, by the code that tells of them."""
    funnel: list[FunnelStage]


def decide(keys: pl.DataFrame, severity: Mapping[str, str]) -> Decision:
    """Drop what is there twice or contradicts itself, as far as the severities say so."""
    stays = np.ones(len(keys), np.bool_)
    copies = pl.DataFrame(schema={"at": pl.UInt32, "kept": pl.UInt32})
    if level_of("PD401", severity) in ("E", "W"):
        copies = find_copies(keys)
        stays[copies["at"]] = False
    distinct = np.flatnonzero(stays)
    level = level_of("PD403", severity)
    against = find_contradictions(keys[distinct] if level != "off" else keys.clear())
    contradictory = pl.Series("at", distinct[against], dtype=pl.UInt32)
    reported: dict[str, pl.Series] = {}
    if level == "E":
        stays[contradictory] = False
    else:
        reported, contradictory = {"PD403": contradictory}, contradictory.clear()
    num_distinct = len(distinct)
    return Decision(
        stays,
        copies,
        contradictory,
        reported,
        [
            stage("duplicates", len(keys), num_distinct, {"PD401": len(copies)}),
            stage("contradictions", num_distinct, int(stays.sum()), {"PD403": len(contradictory)}),
        ],
    )


def level_of(code: str, severity: Mapping[str, str]) -> str:
    return severity.get(code, CHECKS[code].severity)


def stage(name: str, rows_in: int, rows_out: int, dropped: Mapping[str, int]) -> FunnelStage:
    counts = {code: count for code, count in sorted(dropped.items()) if count}
    return FunnelStage(stage=name, rows_in=rows_in, rows_out=rows_out, dropped=counts)
