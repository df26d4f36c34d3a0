"""Which records stay, and why the others do not: decided on keys, without their texts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check import CHECKS
from prefdata.check.sets.leaks import LEAKED, SHARED, find_leaked
from prefdata.dedup import find_contradictions, find_copies
from prefdata.dedup.near import NearDuplicates, Neighbors, Unit, near_copies
from prefdata.hashing import Numbers
from prefdata.records.findings import Level
from prefdata.records.keys import GROUP_ID, PAIR_ID
from prefdata.records.split_names import Leaks
from prefdata.stages.split import Splits
from prefdata.store.manifest import FunnelStage

EXCLUDED = "excluded: the config leaves this pair out by its id"
CONTRADICTION = "contradictory_pair: another row prefers the same two completions the other way"
_LEAKS = {**LEAKED, "level": pl.String, "dropped": pl.Boolean}
_COPIES = {"at": pl.UInt32, "kept": pl.UInt32, "similarity": pl.Float64}


class Near(NamedTuple):
    """The near-duplicates of all rows, by what is compared."""

    options: NearDuplicates
    by_unit: Mapping[Unit, Neighbors]
    only_leaks: bool = False
    """Whether they are looked for because of splits alone, and PD402 is not asked for."""

    def within(self, split: NDArray[np.uint8]) -> "Near":
        """The near-duplicates of each split by itself."""
        by_unit = {unit: found.within(split) for unit, found in self.by_unit.items()}
        return self._replace(by_unit=by_unit)


class Divided(NamedTuple):
    """The splits that records came in, and what becomes of what two of them share."""

    of_rows: NDArray[np.uint8]
    """A number for each record; of two splits the one with the higher number keeps what both
    have."""
    leaks: Leaks


def divide(splits: Splits, leaks: Leaks) -> Divided | None:
    """Return what is to be decided of splits; None if the inputs are one set."""
    return None if splits.of_rows is None else Divided(splits.of_rows, leaks)


class FilterResult(NamedTuple):
    """The fate of every record, by its place in the keys."""

    kept_mask: NDArray[np.bool_]
    excluded: pl.Series
    """Places of pairs that the config leaves out."""
    leaks: pl.DataFrame
    """Rows of LEAKED, `level`, `dropped`: what two splits share, in the one that gives way."""
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
    split_key: Numbers
    """What a record's split is drawn by: equal for prompts that are near-duplicates."""
    funnel: list[FunnelStage]

    @property
    def duplicates(self) -> pl.DataFrame:
        """Pairs that do not stay, and those that do in their stead."""
        gone = self.near.filter(~pl.Series(self.kept_mask)[self.near["at"]])
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
    divided: Divided | None = None,
) -> FilterResult:
    """Drop what is excluded, leaks, is there twice, contradicts itself or is near, as asked for.

    Leaks are judged first, so that no copy in one split hides behind that of another. Copies,
    contradictions and near copies are then those of each split.
    """
    kept_mask = np.ones(len(keys), np.bool_)
    funnel: list[FunnelStage] = []

    def drop(name: str, places: pl.Series, counts: Mapping[str, int]) -> None:
        before = int(kept_mask.sum())
        kept_mask[places] = False
        funnel.append(stage(name, before, int(kept_mask.sum()), counts))

    excluded = _places_of(keys, exclusions)
    if len(excluded):
        drop("exclusions", excluded, {"PD409": len(excluded)})
    leaks, split_key = pl.DataFrame(schema=_LEAKS), _drawn_by(keys, near)
    if divided is not None:
        keys = keys.with_columns(split=pl.Series(divided.of_rows))
        leaks = _leaks(keys, kept_mask, severity, near, divided)
        drop("leaks", leaks.filter("dropped")["at"], _count_codes(leaks.filter("dropped")))
        near = near and near.within(divided.of_rows)
    copies = _copies(keys, kept_mask, level_of("PD401", severity))
    drop("duplicates", copies["at"], {"PD401": len(copies)})
    found = _contradictory(keys, kept_mask, level_of("PD403", severity))
    refused = found if level_of("PD403", severity) == "E" else found.clear()
    drop("contradictions", refused, {"PD403": len(refused)})
    near_ones = _near_copies(keys, kept_mask, near)
    gone = near_ones["at"] if level_of("PD402", severity) == "E" else near_ones["at"].clear()
    drop("near duplicates", gone, {"PD402": len(gone)})
    return FilterResult(
        kept_mask,
        excluded,
        leaks,
        copies,
        near_ones,
        "I" if level_of("PD402", severity) == "I" else "W",
        refused,
        {} if level_of("PD403", severity) == "E" else {"PD403": found},
        split_key,
        funnel,
    )


def _leaks(
    keys: pl.DataFrame,
    kept_mask: NDArray[np.bool_],
    severity: Mapping[str, str],
    near: Near | None,
    divided: Divided,
) -> pl.DataFrame:
    """What two splits share, with its level; dropped where leaks are, and the level is E or W."""
    frame = keys.with_row_index("at")
    if near is not None:
        frame = frame.with_columns(cluster=pl.Series(near.by_unit["prompt"].clusters))
    frame = frame.filter(pl.Series(kept_mask))
    levels = {code: level_of(code, severity) for code in SHARED}
    found = find_leaked(frame, [code for code, level in levels.items() if level in ("E", "W")])
    counted = find_leaked(frame, [code for code, level in levels.items() if level == "I"])
    found = found.with_columns(
        level=pl.col("code").replace_strict(levels, return_dtype=pl.String),
        dropped=pl.lit(divided.leaks == "drop_from_train"),
    )
    if divided.leaks == "report":
        found = found.with_columns(level=pl.lit("W"))
    counted = counted.join(found, on="at", how="anti")
    counted = counted.with_columns(level=pl.lit("I"), dropped=pl.lit(value=False))
    return pl.concat([pl.DataFrame(schema=_LEAKS), found, counted]).sort("at")


def _count_codes(leaks: pl.DataFrame) -> dict[str, int]:
    return dict(leaks.group_by("code").len().iter_rows())


def _places_of(keys: pl.DataFrame, ids: pl.DataFrame | None) -> pl.Series:
    if ids is None:
        return pl.Series("at", [], dtype=pl.UInt32)
    return keys.select(PAIR_ID).with_row_index("at").join(ids, on=PAIR_ID, how="semi")["at"].sort()


def _copies(keys: pl.DataFrame, kept_mask: NDArray[np.bool_], level: str) -> pl.DataFrame:
    """Copies among the pairs that stay, by their places in all keys."""
    if level not in ("E", "W"):
        return pl.DataFrame(schema=_COPIES)
    asked = pl.Series(np.flatnonzero(kept_mask), dtype=pl.UInt32)
    found = find_copies(keys if len(asked) == len(keys) else keys[asked])
    return found.select(at=asked[found["at"]], kept=asked[found["kept"]], similarity=pl.lit(1.0))


def _contradictory(keys: pl.DataFrame, kept_mask: NDArray[np.bool_], level: str) -> pl.Series:
    distinct = np.flatnonzero(kept_mask)
    against = find_contradictions(keys[distinct] if level != "off" else keys.clear())
    return pl.Series("at", distinct[against], dtype=pl.UInt32)


def _near_copies(
    keys: pl.DataFrame, kept_mask: NDArray[np.bool_], near: Near | None
) -> pl.DataFrame:
    if near is None or near.only_leaks:
        return pl.DataFrame(schema=_COPIES)
    unit, keep = near.options.unit, near.options.keep
    groups = keys.select(GROUP_ID) if unit == "prompt" else None
    return near_copies(near.by_unit[unit], kept_mask, groups=groups, longest=keep == "longest")


def _drawn_by(keys: pl.DataFrame, near: Near | None) -> Numbers:
    """A prompt's own id, or the smallest one of the prompts that it hangs together with."""
    ids = keys["group_id_hi"]
    if near is None:
        return ids.to_numpy()
    clusters = pl.Series("cluster", near.by_unit["prompt"].clusters)
    smallest = pl.DataFrame([ids, clusters]).select(pl.col("group_id_hi").min().over("cluster"))
    return smallest["group_id_hi"].to_numpy()


def level_of(code: str, severity: Mapping[str, str]) -> str:
    return severity.get(code, CHECKS[code].severity)


def stage(name: str, rows_in: int, rows_out: int, dropped: Mapping[str, int]) -> FunnelStage:
    counts = {code: count for code, count in sorted(dropped.items()) if count}
    return FunnelStage(stage=name, rows_in=rows_in, rows_out=rows_out, dropped=counts)
