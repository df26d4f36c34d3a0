"""Rows of one part to columns: records, refused rows, and the rows that each pair was made of."""

from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

import polars as pl

from prefdata.read.adapt.adapter import Adapter
from prefdata.read.adapt.columns import ParsedRow, Place, RecordColumns, RejectedColumns
from prefdata.read.adapt.fields import at_path, read_flag
from prefdata.read.adapt.ids import canonical_json
from prefdata.read.adapt.trees import MAX_TURNS, prompt_row, prompts, tree_rows
from prefdata.read.drift import Drift
from prefdata.read.faults import RowError
from prefdata.read.files.chunks import Member, Unit
from prefdata.read.files.jsonl import Row
from prefdata.read.files.parse_json import Object, parse_line
from prefdata.read.files.source import InputFile
from prefdata.read.layouts.model import Layout, Tree
from prefdata.read.limits import MIB, Limits, Pairing
from prefdata.read.unread import UnreadColumns, count_unread, unread_columns
from prefdata.records.keys import SOURCE_ROWS
from prefdata.records.split_names import split_of_rows

MAX_EXTRA_KEYS = 1000  # distinct keys that are counted by name
MAX_EXPANSION = 1024 * MIB  # raw bytes of one row times its pairs
UNPAIRED = RowError("R213", "no other row of its prompt can be compared with it")
UNREACHED = RowError(
    "R213", f"a message above it is refused, or it is deeper than {MAX_TURNS} turns"
)
PASSED_BY = RowError("R213", "the pairing strategy drew other rows of its prompt")


class RowOptions(NamedTuple):
    """Options for reading rows; the same for all parts of a file."""

    layout: Layout | None
    """None if no row of the file's first part was an object."""
    pairing: Pairing = Pairing()
    limits: Limits = Limits()
    plain: Literal["chat", "text", "plain"] | None = None
    """Form of plain text if the layout leaves it open (read/texts.py); None: as the layout says."""


class _Prompt(NamedTuple):
    """Row assembled from rows of a unit, and their indices in the unit."""

    row: Object
    context: tuple[int, ...]
    candidates: tuple[int, ...]


class Collector:
    """Collector of the records and the refused rows of one part."""

    def __init__(self, file: InputFile, options: RowOptions) -> None:
        layout, self.limits = options.layout, options.limits
        self.layout = layout
        if layout is not None:
            self.adapter = Adapter(layout, options.pairing, options.limits, options.plain)
        self.records, self.rejected = RecordColumns(file), RejectedColumns(file)
        self.num_rejected = self.prompts = self.completions = 0
        self.extra_keys: dict[str, int] = {}
        self.drift = Drift()
        self.columns_read = layout.read if layout else frozenset()
        self.read_inside = layout.read_inside if layout else {}
        self._unread: dict[str, list[Any]] = {}
        self._order: dict[str, int] = {}
        self.labels = {True: 0, False: 0}
        self._members: list[tuple[int, int, int]] = []

    @property
    def unread(self) -> UnreadColumns:
        """Columns that were not read, over all rows that are objects."""
        return unread_columns(self._unread, self._order)

    @property
    def members(self) -> pl.DataFrame:
        """Source rows of the pairs, with the schema SOURCE_ROWS."""
        return pl.DataFrame(self._members, schema=SOURCE_ROWS, orient="row")

    def read(self, rows: Iterator[Row]) -> None:
        """Adapt rows that are independent of each other."""
        for line, offset, raw, value in rows:
            fault = value if isinstance(value, RowError) else self._adapt(line, offset, raw, value)
            if fault:
                self._refuse(line, offset, _raw_of(value, raw), fault)

    def read_unit(self, unit: Unit) -> None:
        """Adapt the rows of a unit together; rows without a pair are refused."""
        faults: dict[int, RowError] = {}
        paired: set[int] = set()
        next_ordinal = dict.fromkeys(range(len(unit.members)), 0)
        for prompt in self._prompts_of(unit, faults):
            members = [unit.members[place] for place in prompt.candidates]
            size = sum(len(member.raw) for member in members)
            draft = self._draft_of(prompt.row, size)
            if isinstance(draft, RowError):
                for place in (*prompt.context, *prompt.candidates):
                    faults.setdefault(place, draft)
                continue
            for pair in draft.pairs:
                assert pair.places is not None
                chosen, rejected = (prompt.candidates[place] for place in pair.places)
                used = (*prompt.context, chosen, rejected)
                one = draft._replace(pairs=[pair])
                self._add_pair(unit, one, used, chosen, next_ordinal[chosen])
                next_ordinal[chosen] += 1
                paired.update(used)
            for place in prompt.candidates:
                faults.setdefault(place, PASSED_BY)
        for place, member in enumerate(unit.members):
            if place not in paired:
                why = faults.get(place, UNPAIRED)
                self._refuse(member.line, member.offset, member.raw, why)

    def _add_pair(
        self, unit: Unit, draft: ParsedRow, used: tuple[int, ...], chosen: int, ordinal: int
    ) -> None:
        """Add a pair under the line of its chosen side; record the other lines it was made of."""
        line, offset, raw, _ = unit.members[chosen]
        num_bytes = sum(len(unit.members[place].raw) for place in used)
        for tie in self.records.add(line, offset, draft, num_bytes, ordinal):
            self.rejected.add_tie(Place(line, offset, raw, ordinal), draft, tie)
        for place in used:
            if place != chosen:
                self._members.append((line, ordinal, unit.members[place].line))

    def _prompts_of(self, unit: Unit, faults: dict[int, RowError]) -> Iterator[_Prompt]:
        """Yield the rows that a unit is read as, without the rows that are faulty themselves."""
        rows: dict[int, Object] = {}
        for place, member in enumerate(unit.members):
            try:
                rows[place] = self._member_row(member)
            except RowError as fault:
                faults[place] = fault
        tree = self.adapter.layout.tree
        if tree is not None:
            yield from _tree_prompts(unit, rows, tree, faults)
        elif len(rows) > 1:
            yield _Prompt(_together(list(rows.values())), (), tuple(rows))

    def _member_row(self, member: Member) -> Object:
        row = parse_line(member.json, self.limits)
        self._count_extra(row, member.line)
        whole, candidates = self.adapter.check(row), self.adapter.layout.candidates
        if candidates and candidates.good:
            label = read_flag(at_path(candidates.good, whole))
            if label is not None:
                self.labels[label] += 1
        return whole

    def _adapt(self, line: int, offset: int, raw: bytes | None, value: Object) -> RowError | None:
        """Turn one object into records; return its fault, if any."""
        if self.layout is None:  # no object was in the first rows of the file
            return RowError("R209", "no layout was found among the first rows")
        self._count_extra(value, line)
        try:
            row = self.adapter.check(value)
            if self.layout.tree is not None:
                kept = _raw_of(value, raw)
                return self._adapt_tree(line, offset, kept, tree_rows(row, self.layout.tree))
        except RowError as fault:
            return fault
        num_bytes = len(raw or b"")
        draft = self._draft_of(row, num_bytes)
        if isinstance(draft, RowError):
            return draft
        for tie in self.records.add(line, offset, draft, num_bytes):
            self.rejected.add_tie(Place(line, offset, _raw_of(value, raw), tie), draft, tie)
        return None

    def _adapt_tree(
        self, line: int, offset: int, raw: bytes, rows: list[Object]
    ) -> RowError | None:
        """Turn the rows of a tree into records; refuse only those that give no pair."""
        drafts = [self._draft_of(row, len(raw)) for row in rows]
        ordinal, faults = 0, [draft for draft in drafts if isinstance(draft, RowError)]
        if len(faults) == len(drafts):
            return faults[0]
        for draft in drafts:
            if isinstance(draft, RowError):
                self.rejected.add_row(line, offset, draft, raw, ordinal)
                ordinal += 1
                continue
            for tie in self.records.add(line, offset, draft, len(raw), ordinal):
                self.rejected.add_tie(Place(line, offset, raw, ordinal + tie), draft, tie)
            ordinal += len(draft.pairs)
        return None

    def _draft_of(self, row: Object, num_bytes: int) -> ParsedRow | RowError:
        """Return the pairs of a checked row of this size, or its fault."""
        try:
            draft = self.adapter.read_whole(row)
        except RowError as fault:
            return fault
        if num_bytes * len(draft.pairs) > MAX_EXPANSION:
            return RowError("R212", f"its {len(draft.pairs):,} pairs would take over 1 GiB")
        if draft.completions:
            self.prompts += 1
            self.completions += draft.completions
        return draft

    def _refuse(self, line: int, offset: int, raw: bytes, fault: RowError) -> None:
        self.num_rejected += 1
        self.rejected.add_row(line, offset, fault, raw)

    def _count_extra(self, row: Object, line: int) -> None:
        """Count the columns that are not read, and those that the layout does not name."""
        for head, keys in self.read_inside.items():
            inner = row.get(head)
            if type(inner) is dict and not keys.issuperset(inner):
                named = {f"{head}.{key}": inner[key] for key in inner.keys() - keys}
                count_unread(named, self.columns_read, self._unread)
        extra: Collection[str] = frozenset()
        if not self.columns_read.issuperset(row):
            if not self._order.keys() >= row.keys():
                for name in row:
                    self._order.setdefault(name, len(self._order))
            count_unread(row, self.columns_read, self._unread)
            extra = row.keys() - self.adapter.known
        if not self.drift.first or extra != self.extra_keys.keys():
            self.drift.see(line, extra, self.extra_keys)
        for name in extra:
            known = name in self.extra_keys or len(self.extra_keys) < MAX_EXTRA_KEYS
            key = name if known else "(others)"
            self.extra_keys[key] = self.extra_keys.get(key, 0) + 1


def _raw_of(value: Object | RowError, raw: bytes | None) -> bytes:
    """Return the row's bytes, or its JSON if its format does not store rows as separate bytes."""
    return canonical_json(value).encode() if raw is None else raw


def _together(rows: list[Object]) -> Object:
    """Return the values that are equal in all rows, and the rows themselves as `rows`."""
    first, *others = rows
    common = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
    return {**common, "rows": rows}


def _tree_prompts(
    unit: Unit, rows: dict[int, Object], tree: Tree, faults: dict[int, RowError]
) -> Iterator[_Prompt]:
    """Yield the prompts of a tree whose messages are rows; mark unreached messages as faults."""
    below: dict[int, list[int]] = {}
    for place, parent in enumerate(unit.parents):
        if place in rows:
            below.setdefault(parent, []).append(place)
    reached: set[int] = set()

    def replies(place: int) -> list[int]:
        found = below.get(place, [])
        reached.update((place, *found))
        return found

    def is_answer(place: int) -> bool:
        return bool(rows[place].get(tree.role) == tree.answers)

    for first in below.get(-1, []):
        for path, answers in prompts(first, replies, is_answer):
            turns, compared = tuple(rows[at] for at in path), [rows[at] for at in answers]
            split = split_of_rows([*turns, *compared])
            rest: Object = {"split": split} if split else {}
            yield _Prompt(prompt_row(rest, turns, compared, tree), path, tuple(answers))
    faults.update(dict.fromkeys(rows.keys() - reached - faults.keys(), UNREACHED))
