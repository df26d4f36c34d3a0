"""Counts and first locations of every code that was found, over all stages of a build."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check.catalog import catalog
from prefdata.check.sets.leaks import LEAK_NAMES
from prefdata.records.findings import CodeCount, Findings, Level, merge_counts
from prefdata.stages.filter import CONTRADICTION, EXCLUDED, NOT_DRAWN
from prefdata.stages.scan import ScanResult
from prefdata.stages.shard import ShardResult, ShardTask
from prefdata.store.commit import FileDigest
from prefdata.store.manifest import SourceMix
from prefdata.tokens.template.render import Refusal


class BuiltShards(NamedTuple):
    """Shards of a build: the tasks and their results."""

    tasks: Sequence[ShardTask]
    shards: Sequence[ShardResult]
    orders: Mapping[int, NDArray[np.int64]] = MappingProxyType({})
    """Of shards that a mixture wrote, by their index: the tokenized pair that each row is of."""
    not_drawn: Sequence[int] = ()
    """Pairs that a mixture draws no time, by index in the keys."""
    mixture: Sequence[SourceMix] = ()

    @property
    def notes(self) -> list[str]:
        return sorted({made.facts.note for made in self.shards if made.facts.note})

    @property
    def rows(self) -> int:
        """Return the number of rows of all shards."""
        return sum(made.facts.rows for made in self.shards)

    @property
    def num_tokenized(self) -> int:
        """Return the number of tokenized pairs, each counted once."""
        refused = sum(len(made.facts.refusals) for made in self.shards)
        return sum(len(task.places) for task in self.tasks) - refused

    def pairs_of(self, number: int) -> NDArray[np.int64]:
        """Return the pair of each row of a shard, by index in the keys."""
        task, facts = self.tasks[number], self.shards[number].facts
        at = np.delete(task.places["at"].to_numpy().astype(np.int64), list(facts.refusals))
        return at[self.orders[number]] if number in self.orders else at

    @property
    def seals(self) -> dict[str, FileDigest]:
        """Return the digest of every file of the shards."""
        return {name: seal for made in self.shards for name, seal in made.files.items()}

    def findings(self) -> dict[str, tuple[int, list[int]]]:
        """Return the number of tokenized pairs with each code, and the first, by index in keys."""
        found: dict[str, tuple[int, list[int]]] = {}
        for task, made in zip(self.tasks, self.shards, strict=True):
            places = task.places["at"]
            for code, num in made.facts.findings.items():
                before, first = found.get(code, (0, []))
                rows = [int(places[row]) for row in made.facts.first[code]]
                found[code] = before + num, first + rows
        return {code: (num, sorted(first)) for code, (num, first) in sorted(found.items())}

    def refusals(self) -> dict[int, Refusal]:
        """Return why records were refused at tokenization, by index in the keys."""
        found = {}
        for task, made in zip(self.tasks, self.shards, strict=True):
            places = task.places["at"]
            found.update({int(places[row]): why for row, why in made.facts.refusals.items()})
        return found


NOTHING_MADE = BuiltShards((), ())


def codes_met(
    found: ScanResult, made: BuiltShards, refusals: dict[int, Refusal], examples: int
) -> Findings:
    """Return every code that was found, by level, with the locations of the first pairs.

    `refusals` are by index in the keys.
    """
    contradictory = [(int(at), CONTRADICTION) for at in found.decision.contradictory]
    refused: dict[str, list[tuple[int, str]]] = {"PD403": contradictory}
    for at, refusal in sorted(refusals.items()):
        refused.setdefault(refusal.code, []).append((at, refusal.message))
    copies = found.decision.copies["at"].to_list()
    reported = {code: list(places) for code, places in found.decision.reported.items()}
    met: Findings = {
        "E": _of_parts(found, ("unread", "refused"), examples),
        "W": _of_parts(found, ("reported",), examples),
        "I": _of_parts(found, ("counted",), examples),
    }
    late = {code: _placed(found, some, examples) for code, some in refused.items()}
    met["E"] = merge_counts([met["E"], late], examples)
    for code, places in {**reported, "PD401": copies}.items():
        said = [(int(at), catalog()[code].meaning) for at in places]
        met["W"][code] = _placed(found, said, examples)
    near = _placed(found, _near_messages(found, examples), examples)
    met[found.decision.near_level]["PD402"] = near
    for (level, code), rows in found.decision.leaks.group_by("level", "code", maintain_order=True):
        said = leak_messages(found, rows)
        met[level][str(code)] = _placed(found, said, examples)
    excluded = [(int(at), EXCLUDED) for at in found.decision.excluded]
    met["I"]["PD409"] = _placed(found, excluded, examples)
    met["I"]["PD410"] = _placed(found, [(at, NOT_DRAWN) for at in made.not_drawn], examples)
    for one in found.of_set:
        assert one.severity != "off"
        named = [(at, one.message) for at in one.examples]
        met[one.severity][one.code] = _placed(found, named, examples)._replace(num=one.num)
    for code, (num, first) in made.findings().items():
        said = [(at, catalog()[code].meaning) for at in first]
        own_level: Level = "I" if catalog()[code].severity == "I" else "W"
        met[own_level][code] = _placed(found, said, examples)._replace(num=num)
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


def leak_messages(found: ScanResult, leaks: pl.DataFrame) -> list[tuple[int, str]]:
    """Return a message for each row of `FilterResult.leaks`.

    It says what the pair shares, and with which row of the split that keeps it.
    """
    of_rows, names = found.splits.of_rows, found.splits.names
    assert of_rows is not None
    kept = found.keys.select("source_index", "line")[leaks["kept"]]
    return [
        (at, f"{LEAK_NAMES[code]} is in {names[of_rows[other]]}: {found.location(source, line)}")
        for (at, other, code), (source, line) in zip(
            leaks.select("at", "kept", "code").iter_rows(), kept.iter_rows(), strict=True
        )
    ]


def _near_messages(found: ScanResult, examples: int) -> list[tuple[int, str]]:
    """Return each near-duplicate's index with a message; the message is empty after `examples`."""
    near = found.decision.near
    kept = found.keys.select("source_index", "line")[near["kept"].head(examples)]
    said = [
        f"similarity {similarity:.2f} to {found.location(source, line)}"
        for similarity, (source, line) in zip(near["similarity"], kept.iter_rows(), strict=False)
    ]
    rest = [""] * (len(near) - len(said))
    return list(zip(near["at"].to_list(), said + rest, strict=True))


def _placed(found: ScanResult, pairs: list[tuple[int, str]], examples: int) -> CodeCount:
    """Return the count of pairs, given by index in the keys, with the first ones' locations."""
    first = []
    for at, message in pairs[:examples]:
        source, line = found.keys.select("source_index", "line").row(at)
        first.append(found.location(source, line, message))
    return CodeCount(len(pairs), tuple(first))
