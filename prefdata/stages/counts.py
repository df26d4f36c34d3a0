"""Counts and first locations of every code that was found, over all stages of a build."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.check.catalog import catalog
from prefdata.check.sets.leaks import LEAK_NAMES
from prefdata.engine.exchange import EVERYTHING, read_bucket
from prefdata.records.findings import CodeCount, Findings, Level, merge_counts
from prefdata.stages.events import CONTRADICTORY, COPY, EXCLUDED, LEAKED, NEAR, REPORTED
from prefdata.stages.filter import CONTRADICTION, EXCLUSION, NOT_DRAWN
from prefdata.stages.scan import ScanResult
from prefdata.stages.shard import ShardResult, ShardTask
from prefdata.store.commit import FileDigest
from prefdata.store.manifest import SourceMix
from prefdata.store.shards import read_shard
from prefdata.store.staging import Staging
from prefdata.tokens.stage import MOST_PLACES


class BuiltShards(NamedTuple):
    """Shards of a build: the tasks and their results."""

    tasks: Sequence[ShardTask]
    shards: Sequence[ShardResult]
    orders: Mapping[int, NDArray[np.int64]] = MappingProxyType({})
    """Of shards that a mixture wrote, by their index: the tokenized pair that each row is of."""
    not_drawn: Sequence[int] = ()
    """Pairs that a mixture draws no time, by index in the keys."""
    not_drawn_paths: Sequence[Path] = ()
    """Their run of LATE."""
    mixture: Sequence[SourceMix] = ()
    tokens: Sequence[pa.Table] = ()
    """Token shards; none if nothing was written."""

    @property
    def notes(self) -> list[str]:
        return sorted({made.facts.note for made in self.shards if made.facts.note})

    @property
    def rows(self) -> int:
        """Return the number of rows of all shards."""
        return sum(made.facts.rows for made in self.shards)

    @property
    def num_refused(self) -> Counter[str]:
        """Return the number of records refused at tokenization, by code."""
        total = Counter[str]()
        for made in self.shards:
            total.update(made.facts.refused)
        return total

    @property
    def refused_paths(self) -> list[Path]:
        """Return the files of the records refused at tokenization."""
        return [
            task.root / task.refused_path
            for task, made in zip(self.tasks, self.shards, strict=True)
            if made.facts.refused
        ]

    def order_of(self, number: int) -> pl.DataFrame:
        """Return the pair of each row of a shard, as rows of ORDER."""
        task = self.tasks[number]
        order = task.share.read(task.root)
        if self.shards[number].facts.refused:
            refused = read_bucket([task.root / task.refused_path], EVERYTHING)["key"]
            order = order.filter(~pl.col("at").is_in(refused.cast(pl.Int64).implode()))
        return order[self.orders[number]] if number in self.orders else order

    @property
    def seals(self) -> dict[str, FileDigest]:
        """Return the digest of every file of the shards."""
        return {
            name: seal
            for task, made in zip(self.tasks, self.shards, strict=True)
            for name, seal in made.files.items()
            if name != task.refused_path
        }

    def findings(self) -> dict[str, tuple[int, list[int]]]:
        """Return the number of tokenized pairs with each code, and the first, by index in keys."""
        found: dict[str, tuple[int, list[int]]] = {}
        for made in self.shards:
            for code, num in made.facts.findings.items():
                before, first = found.get(code, (0, []))
                found[code] = before + num, first + made.facts.first[code]
        return {code: (num, sorted(first)) for code, (num, first) in sorted(found.items())}

    def first_refused(self) -> dict[str, list[tuple[int, str]]]:
        """Return the first records refused at tokenization, by code, with the reason."""
        first: dict[str, list[tuple[int, str]]] = {}
        for made in self.shards:
            for code, some in made.facts.first_refused.items():
                first[code] = sorted([*first.get(code, []), *some])[:MOST_PLACES]
        return first


class ShardTables(Sequence[pa.Table]):
    """Token shards of a build, each mapped anew when it is taken: a map counts as memory."""

    def __init__(self, staging: Staging, made: BuiltShards) -> None:
        self._staging, self._made = staging, made

    def __len__(self) -> int:
        return len(self._made.shards)

    def __getitem__(self, number: Any) -> Any:
        task, shard = self._made.tasks[number], self._made.shards[number]
        return read_shard(self._staging.place_of(task.tokens_path), rows=shard.facts.rows)


NOTHING_MADE = BuiltShards((), ())


def codes_met(found: ScanResult, made: BuiltShards, examples: int) -> Findings:
    """Return every code that was found, by level, with the locations of the first pairs."""
    met: Findings = {
        "E": _of_parts(found, ("unread", "refused"), examples),
        "W": _of_parts(found, ("reported",), examples),
        "I": _of_parts(found, ("counted",), examples),
    }
    late = {"PD403": _of_events(found, CONTRADICTORY, lambda _: CONTRADICTION, examples)}
    num_refused = made.num_refused
    for code, first in made.first_refused().items():
        late[code] = _placed(found, first, examples)._replace(num=num_refused[code])
    met["E"] = merge_counts([met["E"], late], examples)
    for kind, own in ((REPORTED, "PD403"), (COPY, "PD401")):
        met["W"][own] = _of_events(found, kind, partial(_meaning, own), examples)
    met[found.near_level]["PD402"] = _of_events(
        found, NEAR, partial(_near_message, found), examples
    )
    counts = found.settled.counts.filter(pl.col("kind") == LEAKED)
    for level, code in sorted(set(counts["level", "code"].iter_rows())):
        said = partial(leak_message, found)
        met[level][code] = _of_events(found, LEAKED, said, examples, code=code, level=level)
    met["I"]["PD409"] = _of_events(found, EXCLUDED, lambda _: EXCLUSION, examples)
    not_drawn = [(at, NOT_DRAWN) for at in made.not_drawn]
    met["I"]["PD410"] = _placed(found, not_drawn, examples)
    for one in found.of_set:
        assert one.severity != "off"
        named = [(at, one.message) for at in one.examples]
        met[one.severity][one.code] = _placed(found, named, examples)._replace(num=one.num)
    for code, (num, rows) in made.findings().items():
        named = [(at, catalog()[code].meaning) for at in rows]
        own_level: Level = "I" if catalog()[code].severity == "I" else "W"
        met[own_level][code] = _placed(found, named, examples)._replace(num=num)
    return met


def _of_parts(found: ScanResult, kinds: Sequence[str], examples: int) -> dict[str, CodeCount]:
    """Merge the counts of all chunks, of one kind after another, with the lines of elements."""
    indices = {file.file.source: at for at, file in enumerate(found.files)}
    merged = merge_counts(
        [getattr(part.facts, kind) for kind in kinds for part in found.parts], examples
    )
    return {
        code: met._replace(
            first=tuple(
                found.location(indices[place.source], place.line, place.message, place.offset)
                for place in met.first
            )
        )
        for code, met in merged.items()
    }


def _of_events(
    found: ScanResult, kind: str, say: Callable[[Mapping[str, Any]], str], examples: int,
    **where: str,
) -> CodeCount:  # fmt: skip
    """Return the count of the events of a kind, with the first ones' locations and messages."""
    asked = [pl.col("kind") == kind, *(pl.col(name) == value for name, value in where.items())]
    first = found.settled.first.filter(asked).sort("at").head(examples)
    places = [
        found.location(event["source_index"], event["line"], say(event))
        for event in first.iter_rows(named=True)
    ]
    return CodeCount(found.settled.count(*asked), tuple(places))


def leak_message(found: ScanResult, event: Mapping[str, Any]) -> str:
    """Return the message of a leak: what the pair shares, and with which row of which split."""
    split = found.splits.names[event["kept_split"]]
    place = found.location(event["kept_source_index"], event["kept_line"])
    return f"{LEAK_NAMES[event['code']]} is in {split}: {place}"


def _meaning(code: str, _: Mapping[str, Any]) -> str:
    return catalog()[code].meaning


def _near_message(found: ScanResult, event: Mapping[str, Any]) -> str:
    place = found.location(event["kept_source_index"], event["kept_line"])
    return f"similarity {event['similarity']:.2f} to {place}"


def _placed(found: ScanResult, pairs: Sequence[tuple[int, str]], examples: int) -> CodeCount:
    """Return the count of pairs, given by index in the keys, with the first ones' locations."""
    some = pairs[:examples]
    places = found.places_of([at for at, _ in some])
    first = [
        found.location(source, line, message)
        for (source, line), (_, message) in zip(places, some, strict=True)
    ]
    return CodeCount(len(pairs), tuple(first))
