"""Choose which records to keep, with a reason for each dropped one; only keys are needed.

Pairs can be excluded by id, such as the suspects that `dpo-score` lists.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from prefdata.check.sets.leaks import LEAKED, SHARED, find_leaked
from prefdata.dedup import find_contradictions, find_copies
from prefdata.dedup.near import NearDuplicates, Neighbors, Unit, near_copies
from prefdata.errors import UsageError
from prefdata.records.findings import Level
from prefdata.records.keys import GROUP_ID, PAIR_ID
from prefdata.records.split_names import Leaks
from prefdata.store.manifest import FunnelStage

ID_DIGITS = 32  # of a pair's id, in hex
EXCLUSION = "excluded: the config leaves this pair out by its id"
NOT_DRAWN = "not_drawn: the weight of its source leaves this pair out of the mixture"
CONTRADICTION = "contradictory_pair: another row prefers the same two completions the other way"
EXCLUSIONS, NEAR_DUPLICATES = "exclusions", "near duplicates"  # stages of the funnel
_LEAKS = {**LEAKED, "level": pl.String, "dropped": pl.Boolean}
_COPIES = {"at": pl.UInt32, "kept": pl.UInt32, "similarity": pl.Float64}


class Near(NamedTuple):
    """Near-duplicates of all rows, by the unit that is compared."""

    options: NearDuplicates
    by_unit: Mapping[Unit, Neighbors]
    only_leaks: bool = False
    """True if they are needed only for leaks between splits, because PD402 is off."""

    def within(self, split: NDArray[np.uint8]) -> "Near":
        """Return the near-duplicates within each split, without those across splits."""
        by_unit = {unit: found.within(split) for unit, found in self.by_unit.items()}
        return self._replace(by_unit=by_unit)


class FilterResult(NamedTuple):
    """Decision on every record; pairs are given by index in the keys."""

    kept_mask: NDArray[np.bool_]
    excluded: pl.Series
    """Indices of pairs that the config excludes."""
    leaks: pl.DataFrame
    """Rows of LEAKED with `level` and `dropped`: pairs that another split, which keeps them, has
    too."""
    copies: pl.DataFrame
    """`at`, `kept`, `similarity`: pairs that are exact copies of an earlier one."""
    near: pl.DataFrame
    """`at`, `kept`, `similarity`: near-duplicates, both the kept and the dropped ones."""
    near_level: Level
    """W if near-duplicates are reported, I if they are only counted."""
    contradictory: pl.Series
    """Indices of pairs that are dropped for PD403."""
    reported: dict[str, pl.Series]
    """Indices of kept pairs that have a finding, by its code."""
    funnel: list[FunnelStage]

    @property
    def duplicates(self) -> pl.DataFrame:
        """Return dropped copies and near-duplicates, each with the pair that is kept instead."""
        gone = self.near.filter(~pl.Series(self.kept_mask)[self.near["at"]])
        beyond = gone.select(kept="at", last="kept", less="similarity")
        copies = self.copies.join(beyond, on="kept", how="left").select(
            "at",
            kept=pl.coalesce("last", "kept"),
            similarity=pl.coalesce("less", "similarity"),
        )
        return pl.concat([copies, gone]).sort("at")

    @property
    def near_kept(self) -> pl.DataFrame:
        """Return the near-duplicates that are only reported, each with the one it is near to."""
        return self.near.filter(pl.Series(self.kept_mask)[self.near["at"]])


def decide(
    keys: pl.DataFrame,
    severity: Mapping[str, str],
    near: Near | None = None,
    of_rows: NDArray[np.uint8] | None = None,
    leaks_are: Leaks = "drop_from_train",
) -> FilterResult:
    """Drop excluded, leaked, copied, contradictory and near-duplicate pairs, as `severity` says.

    `keys` has all rows of its prompts, and of what is near to them; those of an exclusion have the
    mark `excluded`. What is decided of some prompts does not depend on others.
    A pair in two splits is kept in the one with the higher number in `of_rows`. Leaks are dropped
    before copies, so that no copy in one split hides a copy in another; copies, contradictions and
    near-duplicates are then searched within each split.
    """
    kept_mask = np.ones(len(keys), np.bool_)
    funnel: list[FunnelStage] = []

    def drop(name: str, places: pl.Series, counts: Mapping[str, int]) -> None:
        before = int(kept_mask.sum())
        kept_mask[places] = False
        funnel.append(stage(name, before, int(kept_mask.sum()), counts))

    excluded = keys["excluded"].arg_true()
    drop(EXCLUSIONS, excluded, {"PD409": len(excluded)})
    leaks = pl.DataFrame(schema=_LEAKS)
    if of_rows is not None:
        keys = keys.with_columns(split=pl.Series(of_rows))
        leaks = _leaks(keys, kept_mask, severity, near, leaks_are)
        drop("leaks", leaks.filter("dropped")["at"], _count_codes(leaks.filter("dropped")))
        near = near and near.within(of_rows)
    copies = _copies(keys, kept_mask, severity["PD401"])
    drop("duplicates", copies["at"], {"PD401": len(copies)})
    refused, reported = _contradictory(keys, kept_mask, severity["PD403"])
    drop("contradictions", refused, {"PD403": len(refused)})
    near_ones = _near_copies(keys, kept_mask, near)
    gone = near_ones["at"] if severity["PD402"] == "E" else near_ones["at"].clear()
    drop(NEAR_DUPLICATES, gone, {"PD402": len(gone)})
    return FilterResult(
        kept_mask,
        excluded,
        leaks,
        copies,
        near_ones,
        "I" if severity["PD402"] == "I" else "W",
        refused,
        reported,
        funnel,
    )


def _leaks(
    keys: pl.DataFrame,
    kept_mask: NDArray[np.bool_],
    severity: Mapping[str, str],
    near: Near | None,
    leaks_are: Leaks,
) -> pl.DataFrame:
    """Return pairs that two splits share, with level; those of level E or W can be dropped."""
    frame = keys.with_row_index("at")
    if near is not None:
        frame = frame.with_columns(cluster=pl.Series(near.by_unit["prompt"].clusters))
    frame = frame.filter(pl.Series(kept_mask))
    levels = {code: severity[code] for code in SHARED}
    found = find_leaked(frame, [code for code, level in levels.items() if level in ("E", "W")])
    counted = find_leaked(frame, [code for code, level in levels.items() if level == "I"])
    found = found.with_columns(
        level=pl.col("code").replace_strict(levels, return_dtype=pl.String),
        dropped=pl.lit(leaks_are == "drop_from_train"),
    )
    if leaks_are == "report":
        found = found.with_columns(level=pl.lit("W"))
    counted = counted.join(found, on="at", how="anti")
    counted = counted.with_columns(level=pl.lit("I"), dropped=pl.lit(value=False))
    return pl.concat([pl.DataFrame(schema=_LEAKS), found, counted]).sort("at")


def _count_codes(leaks: pl.DataFrame) -> dict[str, int]:
    return dict(leaks.group_by("code").len().iter_rows())


def _copies(keys: pl.DataFrame, kept_mask: NDArray[np.bool_], level: str) -> pl.DataFrame:
    """Return the copies among the kept pairs, by index in all keys."""
    if level not in ("E", "W"):
        return pl.DataFrame(schema=_COPIES)
    asked = pl.Series(np.flatnonzero(kept_mask), dtype=pl.UInt32)
    found = find_copies(keys if len(asked) == len(keys) else keys[asked])
    return found.select(at=asked[found["at"]], kept=asked[found["kept"]], similarity=pl.lit(1.0))


def _contradictory(
    keys: pl.DataFrame, kept_mask: NDArray[np.bool_], level: str
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return the contradictory pairs to drop, and those to report by code."""
    distinct = np.flatnonzero(kept_mask)
    against = find_contradictions(keys[distinct] if level != "off" else keys.clear())
    found = pl.Series("at", distinct[against], dtype=pl.UInt32)
    return (found, {}) if level == "E" else (found.clear(), {"PD403": found})


def _near_copies(
    keys: pl.DataFrame, kept_mask: NDArray[np.bool_], near: Near | None
) -> pl.DataFrame:
    if near is None or near.only_leaks:
        return pl.DataFrame(schema=_COPIES)
    unit, keep = near.options.unit, near.options.keep
    groups = keys.select(GROUP_ID) if unit == "prompt" else None
    return near_copies(near.by_unit[unit], kept_mask, groups=groups, longest=keep == "longest")


def stage(name: str, rows_in: int, rows_out: int, dropped: Mapping[str, int]) -> FunnelStage:
    counts = {code: count for code, count in sorted(dropped.items()) if count}
    return FunnelStage(stage=name, rows_in=rows_in, rows_out=rows_out, dropped=counts)


def read_exclusions(paths: Sequence[Path]) -> pl.DataFrame:
    """Return the distinct ids in files, as columns PAIR_ID.

    Each line is JSON with a `pair_id`, or one id.
    """
    ids = sorted({_id_of(path, number, line) for path in paths for number, line in _lines(path)})
    halves = np.frombuffer(b"".join(ids), ">u8").reshape(-1, 2).astype(np.uint64)
    return pl.DataFrame({name: halves[:, at] for at, name in enumerate(PAIR_ID)})


def _lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise UsageError("C119", str(path), problem, "name a file with ids of pairs") from error
    return [(at, line) for at, line in enumerate(data.split(b"\n"), start=1) if line.strip()]


def _id_of(path: Path, number: int, line: bytes) -> bytes:
    text = line.strip().decode(errors="replace")
    try:
        named = str(orjson.loads(text)["pair_id"]) if text.startswith("{") else text
        found = bytes.fromhex(named)
    except (ValueError, KeyError, TypeError):
        found = b""
    if len(found) != ID_DIGITS // 2:
        remedy = f'write {{"pair_id": …}} or the {ID_DIGITS} hex digits of the id'
        raise UsageError("C119", f"{path}:{number}", "has no pair id", remedy)
    return found
