"""Which records stay, and why the others do not: decided on keys, without their texts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check import CHECKS
from prefdata.dedup import find_contradictions, find_copies
from prefdata.dedup.near import NearDuplicates, Neighbors, Unit, near_copies
from prefdata.findings import Level
from prefdata.keys import GROUP, PAIR
from prefdata.mix import Numbers
from prefdata.store.manifest import FunnelStage

EXCLUDED = "excluded: the config leaves this pair out by its id"
CONTRADICTION = "contradictory_pair: another row prefers the same two completions the other way"
_COPIES = {"at": pl.UInt32, "kept": pl.UInt32, "similarity": pl.Float64}


class Near(NamedTuple):
    """The near-duplicates of all rows, by what is compared."""

    options: NearDuplicates
    by_unit: Mapping[Unit, Neighbors]


class Decision(NamedTuple):
    """The fate of every record, by its place in the keys."""

    stays: NDArray[np.bool_]
    excluded: pl.Series
    """Places of pairs that the config leaves out."""
    copies: pl.DataFrame
    """`at`, `kept`, `similarity`: the pairs that are there already, letter by letter."""
    near: pl.DataFrame
    """The same of pairs that are near another one, whether they stay or not."""
    near_level: Level
    """Whether those are reported, or counted alone."""
    contradictory: pl.Series
    """Places of pairs that are refused for PD403."""
    reported: dict[str, pl.Series]
    """Places of pairs that stay, by the code that tells of them."""
    drawn_by: Numbers
    """What a record's split is drawn by: equal for prompts that are near-duplicates."""
    funnel: list[FunnelStage]

    @property
    def duplicates(self) -> pl.DataFrame:
        """Pairs that do not stay, and those that do in their stead."""
        gone = self.near.filter(~pl.Series(self.stays)[self.near["at"]])
        beyond = gone.select(kept="at", last="kept", less="similarity")
        copies = self.copies.join(beyond, on="kept", how="left").select(
            "at",
            kept=pl.coalesce("last", "kept"),
            similarity=pl.coalesce("less", "similarity"),
        )
        return pl.concat([copies, gone]).sort("at")


def decide(
    keys: pl.DataFrame,
    severity: Mapping[str, str],
    near: Near | None = None,
    exclusions: pl.DataFrame | None = None,
) -> Decision:
    """Drop what is excluded, there twice, contradicts itself or is near another, as asked for."""
    stays = np.ones(len(keys), np.bool_)
    excluded = _places_of(keys, exclusions)
    stays[excluded] = False
    num_asked = len(keys) - len(excluded)
    copies = pl.DataFrame(schema=_COPIES)
    if level_of("PD401", severity) in ("E", "W"):
        copies = _copies(keys, stays)
        stays[copies["at"]] = False
    num_distinct = int(stays.sum())
    reported: dict[str, pl.Series] = {}
    contradictory = _contradictory(keys, stays, level_of("PD403", severity))
    if level_of("PD403", severity) == "E":
        stays[contradictory] = False
    else:
        reported["PD403"], contradictory = contradictory, contradictory.clear()
    num_agreeing = int(stays.sum())
    near_ones = _near_copies(keys, stays, near)
    if level_of("PD402", severity) == "E":
        stays[near_ones["at"]] = False
    num_stay = int(stays.sum())
    return Decision(
        stays,
        excluded,
        copies,
        near_ones,
        "I" if level_of("PD402", severity) == "I" else "W",
        contradictory,
        reported,
        _drawn_by(keys, near),
        [
            *_left_out(len(keys), len(excluded)),
            stage("duplicates", num_asked, num_distinct, {"PD401": len(copies)}),
            stage("contradictions", num_distinct, num_agreeing, {"PD403": len(contradictory)}),
            stage("near duplicates", num_agreeing, num_stay, {"PD402": num_agreeing - num_stay}),
        ],
    )


def _left_out(num_pairs: int, num_excluded: int) -> list[FunnelStage]:
    """A stage of its own, where something was left out."""
    if not num_excluded:
        return []
    return [stage("exclusions", num_pairs, num_pairs - num_excluded, {"PD409": num_excluded})]


def _places_of(keys: pl.DataFrame, ids: pl.DataFrame | None) -> pl.Series:
    if ids is None:
        return pl.Series("at", [], dtype=pl.UInt32)
    return keys.select(PAIR).with_row_index("at").join(ids, on=PAIR, how="semi")["at"].sort()


def _copies(keys: pl.DataFrame, stays: NDArray[np.bool_]) -> pl.DataFrame:
    """Copies among the pairs that stay, by their places in all keys."""
    asked = pl.Series(np.flatnonzero(stays), dtype=pl.UInt32)
    found = find_copies(keys if len(asked) == len(keys) else keys[asked])
    return found.select(at=asked[found["at"]], kept=asked[found["kept"]], similarity=pl.lit(1.0))


def _contradictory(keys: pl.DataFrame, stays: NDArray[np.bool_], level: str) -> pl.Series:
    distinct = np.flatnonzero(stays)
    against = find_contradictions(keys[distinct] if level != "off" else keys.clear())
    return pl.Series("at", distinct[against], dtype=pl.UInt32)


def _near_copies(keys: pl.DataFrame, stays: NDArray[np.bool_], near: Near | None) -> pl.DataFrame:
    if near is None:
        return pl.DataFrame(schema=_COPIES)
    unit, keep = near.options.unit, near.options.keep
    groups = keys.select(GROUP) if unit == "prompt" else None
    return near_copies(near.by_unit[unit], stays, groups=groups, longest=keep == "longest")


def _drawn_by(keys: pl.DataFrame, near: Near | None) -> Numbers:
    """A prompt's own id, or the smallest one of the prompts that it hangs together with."""
    ids = keys["group_high"]
    if near is None:
        return ids.to_numpy()
    clusters = pl.Series("cluster", near.by_unit["prompt"].clusters)
    smallest = pl.DataFrame([ids, clusters]).select(pl.col("group_high").min().over("cluster"))
    return smallest["group_high"].to_numpy()


def level_of(code: str, severity: Mapping[str, str]) -> str:
    return severity.get(code, CHECKS[code].severity)


def stage(name: str, rows_in: int, rows_out: int, dropped: Mapping[str, int]) -> FunnelStage:
    counts = {code: count for code, count in sorted(dropped.items()) if count}
    return FunnelStage(stage=name, rows_in=rows_in, rows_out=rows_out, dropped=counts)
