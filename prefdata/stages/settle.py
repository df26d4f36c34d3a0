"""Sums over the decisions on each part's records, and over its lines."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from prefdata.check.sets.tally import Tally, add_tallies, tally_of
from prefdata.engine import Engine
from prefdata.engine.exchange import Bucket, Parts, read_bucket, read_parts
from prefdata.stages.chunk import read_keys, read_narrow
from prefdata.stages.decide import Decisions, read_events
from prefdata.stages.events import CONTRADICTORY, COPY, EVENTS, EXCLUDED, LEAKED, NEAR

_CASE = ["kind", "code", "level"]
_COUNTED = [*_CASE, "dropped", "split"]
RANKS = ("kept", "duplicate", "filtered", "rejected")
"""Classes of lines, by precedence: a line is kept if any of its pairs is."""
_PLACE = ("source_index", "line", "ordinal")
LATE = {"key": pl.UInt64, "code": pl.String, "message": pl.String}
"""Record that is not written although it was decided to keep it, by its index."""


class SettleTask(NamedTuple):
    """Inputs of a worker for the records of one part."""

    root: Path
    part: int
    decisions: Decisions
    examples: int

    @property
    def about(self) -> str:
        return f"the sums of part {self.part}"


class Settled(NamedTuple):
    """Sums over the kept records of a part, and over the events of its rows."""

    tally: Tally
    counts: pl.DataFrame
    """Number of events by kind, code, level, dropped and split."""
    first: pl.DataFrame
    """The first EVENTS of each kind, code and level, by row."""

    def count(self, *where: pl.Expr) -> int:
        """Return the number of events for which all of `where` is true."""
        return int(self.counts.filter(*where)["num"].sum())


def settle_all(root: Path, decisions: Decisions, examples: int, workers: Engine) -> Settled:
    """Return the sums over all parts."""
    number = len(read_parts(root).names)
    tasks = (SettleTask(root, part, decisions, examples) for part in range(number))
    counts = pl.DataFrame(schema={name: EVENTS[name] for name in _COUNTED} | {"num": pl.Int64})
    first = pl.DataFrame(schema=EVENTS)

    def tallies() -> Iterator[Tally]:
        nonlocal counts, first
        for one in workers.map(settle, tasks):
            counts = pl.concat([counts, one.counts]).group_by(_COUNTED).agg(pl.col("num").sum())
            if len(one.first):
                first = _heads(pl.concat([first, one.first]), examples)
            yield one.tally

    tally = add_tallies(tallies())
    return Settled(tally, counts, first)


def settle(task: SettleTask) -> Settled:
    """Return the sums over one part."""
    parts = read_parts(task.root)
    events = events_of_part(parts, task.decisions, task.part)
    counts = events.group_by(_COUNTED).agg(num=pl.len().cast(pl.Int64))
    kept = kept_profile(parts, task.part, events.filter("dropped")["at"])
    return Settled(tally_of(kept), counts, _heads(events, task.examples))


def _heads(events: pl.DataFrame, examples: int) -> pl.DataFrame:
    return events.group_by(_CASE, maintain_order=True).head(examples).select(list(EVENTS))


def rows_of_part(parts: Parts, part: int) -> Bucket:
    start = parts.start_of(part)
    return Bucket(start, start + parts.size_of(part) - 1)


def events_of_part(parts: Parts, decisions: Decisions, part: int) -> pl.DataFrame:
    if not parts.size_of(part):
        return pl.DataFrame(schema=EVENTS)
    return read_events(parts, decisions, rows_of_part(parts, part))


def kept_profile(parts: Parts, part: int, gone: pl.Series) -> pl.DataFrame:
    """Return the profile of a part's records without those that are gone, with their index."""
    start = parts.start_of(part)
    profile = read_narrow(parts, part, "profile")
    at = pl.int_range(start, start + len(profile), dtype=pl.Int64, eager=True)
    return profile.with_columns(at=at).filter(~pl.col("at").is_in(gone.implode()))


def kept_keys(parts: Parts, decisions: Decisions, part: int) -> pl.DataFrame:
    """Return the keys of the records that a part keeps."""
    gone = events_of_part(parts, decisions, part).filter("dropped")
    return read_keys(parts, part).join(gone, on="at", how="anti", maintain_order="left")


class LinesTask(NamedTuple):
    """Inputs of a worker for the lines of one part."""

    root: Path
    part: int
    decisions: Decisions
    refused: tuple[Path, ...]
    """Runs of LATE: records that were refused when they were tokenized."""
    not_drawn: tuple[Path, ...]
    """The same of records that a mixture leaves out."""

    @property
    def about(self) -> str:
        return f"the lines of part {self.part}"

    @property
    def has_late(self) -> bool:
        return bool(self.refused or self.not_drawn)


class Lines(NamedTuple):
    """Lines of a part by RANKS, and the tally of what it keeps."""

    classes: dict[str, int]
    tally: Tally | None
    """None if no kept record is late."""


def count_lines(task: LinesTask) -> Lines:
    """Count the lines of one part by what became of their pairs."""
    parts = read_parts(task.root)
    keys, lines = read_keys(parts, task.part), read_narrow(parts, task.part, "lines")
    events = events_of_part(parts, task.decisions, task.part)
    refused = late_rows(parts, task.part, task.refused)["key"].cast(pl.Int64)
    not_drawn = late_rows(parts, task.part, task.not_drawn)["key"].cast(pl.Int64)
    dropped = events.filter("dropped")
    gone = pl.concat([dropped["at"], refused, not_drawn])

    def some(at: pl.Series) -> pl.DataFrame:
        return keys.filter(pl.col("at").is_in(at.implode())).select(_PLACE)

    def of(*kinds: str) -> pl.Series:
        return dropped.filter(pl.col("kind").is_in(kinds))["at"]

    rejected = pl.concat([of(LEAKED, CONTRADICTORY), refused])
    classes = (
        keys.filter(~pl.col("at").is_in(gone.implode())).select(_PLACE),
        some(of(COPY, NEAR)),
        some(pl.concat([of(EXCLUDED), not_drawn])),
        pl.concat([lines.select(_PLACE), some(rejected)]),
    )
    members = read_narrow(parts, task.part, "members")
    ranked = [
        _with_members(places, members).with_columns(rank=pl.lit(rank))
        for rank, places in enumerate(classes)
    ]
    best = pl.concat(ranked).group_by("line").agg(pl.col("rank").min())
    counts = dict(best["rank"].value_counts().iter_rows())
    return Lines(
        {name: counts.get(rank, 0) for rank, name in enumerate(RANKS)},
        tally_of(kept_profile(parts, task.part, gone)) if task.has_late else None,
    )


def late_rows(parts: Parts, part: int, runs: Sequence[Path]) -> pl.DataFrame:
    """Return the rows of LATE of a part, by row."""
    if not runs or not parts.size_of(part):
        return pl.DataFrame(schema=LATE)
    return read_bucket(runs, rows_of_part(parts, part)).sort("key")


def _with_members(places: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    """Return the lines of pairs, and those of the other rows that the pairs were made from."""
    own = places.select("line")
    if members.is_empty():
        return own
    others = members.join(places, on=["line", "ordinal"], how="semi")
    return pl.concat([own, others.select(line="member")])


class LineSums(NamedTuple):
    """Sums of the lines of all parts."""

    classes: dict[int, Counter[str]]
    """Lines by RANKS, of each input."""
    tally: Tally | None


def count_all_lines(
    root: Path, decisions: Decisions, refused: Sequence[Path], not_drawn: Sequence[Path],
    workers: Engine,
) -> LineSums:  # fmt: skip
    """Return the sums of the lines of all parts; the paths are runs of LATE."""
    parts = read_parts(root)
    tasks = (
        LinesTask(root, part, decisions, tuple(refused), tuple(not_drawn))
        for part in range(len(parts.names))
    )
    classes = dict[int, Counter[str]]()

    def tallies() -> Iterator[Tally]:
        for part, one in enumerate(workers.map(count_lines, tasks)):
            classes.setdefault(int(parts.sources[part]), Counter()).update(one.classes)
            if one.tally is not None:
                yield one.tally

    tally = add_tallies(tallies())
    return LineSums(classes, tally if refused or not_drawn else None)
