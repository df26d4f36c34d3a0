"""Units of rows that give pairs only together.

A unit is all rows with one prompt, or all messages of one tree. The bytes of every row of the file
are held until the last one is read; files of layouts without `gather` are not gathered.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from blake3 import blake3

from prefdata.read.adapt.fields import MISSING, at_path, optional, require
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.adapt.message_cells import parse_columns
from prefdata.read.adapt.widened import plain_rows
from prefdata.read.faults import RowError
from prefdata.read.files.chunks import Block, CsvBlock, Member, RowBlock, Unit, by_size
from prefdata.read.files.jsonl import Row, Tally
from prefdata.read.files.parse_json import Object
from prefdata.read.layouts.model import Gather, Layout
from prefdata.read.limits import Limits
from prefdata.records.split_names import TRAIN, split_of_rows


class Gathered(NamedTuple):
    """Rows of a file by unit, and the rows without a unit."""

    units: list[Unit]
    refused: list[Row]


def gather_blocks(
    blocks: Iterator[Block], layout: Layout | None, limits: Limits
) -> Iterator[Block]:
    """Return blocks of units if the layout gathers rows, else the blocks unchanged."""
    if layout is None or layout.gather is None:
        return blocks
    return _unit_blocks(blocks, layout, layout.gather, limits)


def _unit_blocks(
    blocks: Iterator[Block], layout: Layout, how: Gather, limits: Limits
) -> Iterator[RowBlock]:
    tally = Tally()
    gathered = gather(_rows(blocks, limits, tally), layout, how)
    runs = by_size(iter(gathered.units), lambda unit: sum(len(m.raw) for m in unit.members))
    first = next(runs, [])
    yield RowBlock(first, gathered.refused, tally.lines, tally.blank, tally.bom, tally.nulls)
    yield from (RowBlock(run, [], 0, 0, 0) for run in runs)


def _rows(blocks: Iterator[Block], limits: Limits, tally: Tally) -> Iterator[tuple[Member, Any]]:
    """Yield every row with its raw bytes, and its JSON if the raw bytes are not JSON."""
    for block in blocks:
        for line, offset, raw, value in plain_rows(block, limits, tally):
            json = raw or b""
            if not isinstance(value, RowError) and (raw is None or isinstance(block, CsvBlock)):
                json = orjson.dumps(value, default=str)  # keys in the order given
            yield Member(line, offset, json if raw is None else raw, json), value


def gather(rows: Iterator[tuple[Member, Any]], layout: Layout, how: Gather) -> Gathered:
    """Group rows into units, in the order of their first rows."""
    refused: list[Row] = []
    members: list[Member] = []
    keys: list[tuple[bytes, bytes | None]] = []
    for member, value in rows:
        try:
            if isinstance(value, RowError):
                raise value
            keys.append(_keys(value, layout, how))
        except RowError as fault:
            refused.append((member.line, member.offset, member.raw, fault))
            continue
        members.append(member)
    if not how.by:
        units, lost = _by_parent(members, keys)
        return Gathered(units, refused + lost)
    groups: dict[bytes, list[Member]] = {}
    for member, (key, _) in zip(members, keys, strict=True):
        groups.setdefault(key, []).append(member)
    return Gathered([Unit(tuple(group), ()) for group in groups.values()], refused)


def _keys(row: Object, layout: Layout, how: Gather) -> tuple[bytes, bytes | None]:
    """Return a row's keys: of its prompt, or of its own id and its parent's."""
    if layout.parse:
        row = parse_columns(row, layout.parse)
    if how.id and how.parent:
        parent = at_path(how.parent, row)
        own = _digest([require(how.id, at_path(how.id, row), "any")])
        return own, None if parent in (MISSING, None, "") else _digest([parent])
    first, *others = how.by
    values = [require(first, at_path(first, row), "any")]
    values += [optional(at_path(path, row)) for path in others]
    if layout.sides == "last_turn":
        values = [value[:-1] if type(value) is list else value for value in values]
    split = split_of_rows([row])
    values.append(None if split == TRAIN else split)  # rows of two splits never make a pair
    return _digest(values), None


def _digest(values: list[Any]) -> bytes:
    return blake3(canonical_json(values).encode()).digest(length=16)


def _by_parent(
    members: list[Member], keys: list[tuple[bytes, bytes | None]]
) -> tuple[list[Unit], list[Row]]:
    """Return the trees, and the messages whose root is not in the file."""
    place_of: dict[bytes, int] = {}
    for place, (own, _) in enumerate(keys):
        place_of.setdefault(own, place)
    parents = [
        -1 if parent is None else place_of.get(parent, len(keys)) for _, parent in keys
    ]  # -1: no parent; len(keys): the parent is not in the file
    roots = _roots(parents)
    trees: dict[int, list[int]] = {}
    lost: list[Row] = []
    for place, member in enumerate(members):
        if place_of[keys[place][0]] != place:
            fault = RowError("R213", "another message of the file has this id")
        elif roots[place] < 0:
            fault = RowError("R213", "the message that it replies to is not in the file")
        else:
            trees.setdefault(roots[place], []).append(place)
            continue
        lost.append((member.line, member.offset, member.raw, fault))
    units = []
    for places in trees.values():
        at = {place: number for number, place in enumerate(places)}
        below = tuple(at.get(parents[place], -1) for place in places)
        units.append(Unit(tuple(members[place] for place in places), below))
    return units, lost


def _roots(parents: list[int]) -> list[int]:
    """Return the root above each message; -1 if it is missing or if replies form a cycle."""
    unknown, on_the_way = -2, -3
    roots = [unknown] * len(parents)
    for start in range(len(parents)):
        way, place = [], start
        while 0 <= place < len(parents) and roots[place] == unknown:
            roots[place] = on_the_way
            way.append(place)
            place = parents[place]
        if place == -1:
            root = way[-1]
        elif place == len(parents) or roots[place] == on_the_way:
            root = -1
        else:
            root = roots[place]
        for step in way:
            roots[step] = root
    return roots
