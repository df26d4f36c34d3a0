"""Parsed rows, collected by column and converted to Arrow at once: ten times as fast as by row.

The columns are named by `Record`. Dialogues are collected in columns of their own, all other values
of a pair in one tuple: its ids and location, values of its row, and those of the pair itself, each
under the names of its fields.
"""

from typing import Any, NamedTuple

import pyarrow as pa

from prefdata.arrow import arrow_array
from prefdata.read.adapt.ids import Message, Messages, pair_digest, pair_json, side_digest
from prefdata.read.faults import RowError
from prefdata.read.files.source import InputFile
from prefdata.records.schema import MESSAGE, MESSAGES, RECORDS, REJECTED

BATCH_PAIRS = 2048  # few enough that their objects stay in the processor's cache
BATCH_BYTES = 2**28  # far below the 2 GiB that one Arrow text column can hold


class Pair(NamedTuple):
    """Two completions of one prompt, with the scores, models and ranks in the row."""

    chosen: Messages
    rejected: Messages
    score_chosen: float | None = None
    score_rejected: float | None = None
    margin: float | None = None
    model_chosen: str | None = None
    model_rejected: str | None = None
    chosen_rank: int | None = None
    rejected_rank: int | None = None
    tie: bool = False
    places: tuple[int, int] | None = None
    """Indices of chosen and rejected among the row's candidates, if it has candidates."""


class ParsedRow(NamedTuple):
    """Prompt and pairs of one row; a pair's index in the list is its ordinal."""

    form: str
    prompt: Messages
    tools: str | None
    group_id: bytes
    pairs: list[Pair]
    weight: float
    meta: str
    completions: int = 0
    """Number of completions of the prompt, if the layout has candidates."""


OF_PAIR = slice(Pair._fields.index("score_chosen"), Pair._fields.index("tie"))
SCALARS = (
    *("pair_id", "group_id", "chosen_id", "rejected_id", "line", "offset", "ordinal"),
    *("form", "tools", "weight", "meta"),
    *Pair._fields[OF_PAIR],
)


class _MessageColumn:
    """Column of dialogues: all messages in one list, and the end of each dialogue."""

    def __init__(self) -> None:
        self.flat: list[Message] = []
        self.ends = [0]

    def add(self, messages: Messages) -> None:
        self.flat.extend(messages)
        self.ends.append(len(self.flat))

    def array(self) -> pa.Array:
        parts = list(zip(*self.flat, strict=True)) or [()] * len(MESSAGE)
        columns = [
            pa.nulls(len(part), pa.string())
            if part.count(None) == len(part)
            else arrow_array(part, pa.string())
            for part in parts
        ]
        structs = pa.StructArray.from_arrays(columns, fields=list(MESSAGE))
        return pa.ListArray.from_arrays(arrow_array(self.ends, pa.int32()), structs, type=MESSAGES)


class RecordColumns:
    """Records of one file, by column."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.batches: list[pa.RecordBatch] = []
        self._start()

    def _start(self) -> None:
        self.num_bytes = 0
        self.scalars: list[tuple[Any, ...]] = []  # in the order of SCALARS
        self.dialogues = {f.name: _MessageColumn() for f in RECORDS if f.type == MESSAGES}

    def add(
        self, line: int, offset: int, draft: ParsedRow, num_bytes: int, first: int = 0
    ) -> list[int]:
        """Append the row's pairs; return the indices of its ties, which are not appended.

        `first` is the ordinal of the first pair: above 0 if the line gave pairs before.
        """
        ties, dialogues = [], self.dialogues
        for ordinal, pair in enumerate(draft.pairs, first):
            if pair.tie:
                ties.append(ordinal - first)
                continue
            chosen_id, rejected_id = side_digest(pair.chosen), side_digest(pair.rejected)
            pair_id = pair_digest(draft.group_id, chosen_id, rejected_id)
            values: tuple[Any, ...] = pair
            self.scalars.append(  # adding tuples is twice as fast as unpacking them
                (pair_id, draft.group_id, chosen_id, rejected_id, line, offset, ordinal)
                + (draft.form, draft.tools, draft.weight, draft.meta)
                + values[OF_PAIR]
            )
            dialogues["prompt"].add(draft.prompt)
            dialogues["chosen"].add(pair.chosen)
            dialogues["rejected"].add(pair.rejected)
            self.num_bytes += num_bytes
            if len(self.scalars) >= BATCH_PAIRS or self.num_bytes >= BATCH_BYTES:
                self._flush()
                dialogues = self.dialogues
        return ties

    def _flush(self) -> None:
        num = len(self.scalars)
        if not num:
            return
        columns: dict[str, Any] = dict(zip(SCALARS, zip(*self.scalars, strict=True), strict=True))
        columns["source"] = [self.file.source] * num
        columns["source_index"] = [self.file.index] * num
        arrays = [
            self.dialogues[field.name].array()
            if field.name in self.dialogues
            else arrow_array(columns[field.name], field.type)
            for field in RECORDS
        ]
        self.batches.append(pa.RecordBatch.from_arrays(arrays, schema=RECORDS))
        self._start()

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self.batches, schema=RECORDS)


class Place(NamedTuple):
    """Location of a pair in its file, and the bytes of its row."""

    line: int
    offset: int
    raw: bytes
    ordinal: int


class RejectedColumns:
    """Rows and pairs of one file that were refused during reading."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.rows: list[tuple[Any, ...]] = []  # in the order of REJECTED's fields

    def add_row(
        self, line: int, offset: int, fault: RowError, raw: bytes, ordinal: int = -1
    ) -> None:
        place = (self.file.source, self.file.index, line, offset, ordinal, None)
        self.rows.append((*place, fault.code, fault.message, raw, None))

    def add_tie(self, place: Place, draft: ParsedRow, tie: int) -> None:
        """Add the draft's pair at index `tie`, under its ordinal in the line."""
        pair = draft.pairs[tie]
        json = pair_json(draft.prompt, pair.chosen, pair.rejected).decode()
        where = (self.file.source, self.file.index, place.line, place.offset, place.ordinal, None)
        self.rows.append((*where, "PD303", "both completions rank the same", place.raw, json))

    def table(self) -> pa.Table:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(REJECTED)
        arrays = map(arrow_array, columns, REJECTED.types)
        return pa.Table.from_arrays(list(arrays), schema=REJECTED)
