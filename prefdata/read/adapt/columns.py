"""Parsed rows, collected by column and converted to Arrow at once: ten times as fast as by row.

The columns are named by `Record`. A pair's values come from three tuples whose fields have these
names: its row (ParsedRow), the pair itself (Pair), and its ids and location (KEYS).
"""

from itertools import accumulate, chain
from typing import Any, NamedTuple

import pyarrow as pa

from prefdata.arrow import arrow_array
from prefdata.read.adapt.ids import Messages, pair_digest, pair_json, side_digest
from prefdata.read.faults import RowError
from prefdata.read.files.source import InputFile
from prefdata.records.schema import MESSAGE, MESSAGES, RECORDS, REJECTED

BATCH_PAIRS = 2048  # few enough that their objects stay in the processor's cache
BATCH_BYTES = 2**28  # far below the 2 GiB that one Arrow text column can hold
KEYS = ("pair_id", "chosen_id", "rejected_id", "line", "offset", "ordinal")


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


class RecordColumns:
    """Records of one file, by column."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.batches: list[pa.RecordBatch] = []
        self._start()

    def _start(self) -> None:
        self.num_bytes = 0
        self.rows: list[ParsedRow] = []
        self.pairs: list[Pair] = []
        self.keys: list[tuple[bytes, bytes, bytes, int, int, int]] = []  # in the order of KEYS

    def add(
        self, line: int, offset: int, draft: ParsedRow, num_bytes: int, first: int = 0
    ) -> list[int]:
        """Append the row's pairs; return the indices of its ties, which are not appended.

        `first` is the ordinal of the first pair: above 0 if the line gave pairs before.
        """
        ties = []
        for ordinal, pair in enumerate(draft.pairs, first):
            if pair.tie:
                ties.append(ordinal - first)
                continue
            chosen_id, rejected_id = side_digest(pair.chosen), side_digest(pair.rejected)
            pair_id = pair_digest(draft.group_id, chosen_id, rejected_id)
            self.keys.append((pair_id, chosen_id, rejected_id, line, offset, ordinal))
            self.pairs.append(pair)
            self.rows.append(draft)
            self.num_bytes += num_bytes
            if len(self.pairs) >= BATCH_PAIRS or self.num_bytes >= BATCH_BYTES:
                self._flush()
        return ties

    def _flush(self) -> None:
        num = len(self.pairs)
        if not num:
            return
        columns: dict[str, Any] = {"source": [self.file.source] * num}
        columns["source_index"] = [self.file.index] * num
        columns |= zip(ParsedRow._fields, zip(*self.rows, strict=True), strict=True)
        columns |= zip(Pair._fields, zip(*self.pairs, strict=True), strict=True)
        columns |= zip(KEYS, zip(*self.keys, strict=True), strict=True)
        arrays = [
            _messages_array(columns[field.name])
            if field.type == MESSAGES
            else arrow_array(columns[field.name], field.type)
            for field in RECORDS
        ]
        self.batches.append(pa.RecordBatch.from_arrays(arrays, schema=RECORDS))
        self._start()

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self.batches, schema=RECORDS)


def _messages_array(dialogues: tuple[Messages, ...]) -> pa.Array:
    parts = list(zip(*chain.from_iterable(dialogues), strict=True)) or [()] * len(MESSAGE)
    columns = [
        pa.nulls(len(part), pa.string())
        if part.count(None) == len(part)
        else arrow_array(part, pa.string())
        for part in parts
    ]
    structs = pa.StructArray.from_arrays(columns, fields=list(MESSAGE))
    ends = list(accumulate(map(len, dialogues), initial=0))
    return pa.ListArray.from_arrays(arrow_array(ends, pa.int32()), structs, type=MESSAGES)


class RejectedColumns:
    """Rows and pairs of one file that were refused during reading."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.rows: list[tuple[Any, ...]] = []  # in the order of REJECTED's fields

    def add_row(
        self, line: int, offset: int, fault: RowError, raw: bytes, ordinal: int = -1
    ) -> None:
        place = (self.file.source, self.file.index, line, offset, ordinal)
        self.rows.append((*place, fault.code, fault.message, raw))

    def add_tie(self, line: int, offset: int, ordinal: int, draft: ParsedRow, tie: int) -> None:
        """Add the draft's pair at index `tie` under its ordinal in the line."""
        pair = draft.pairs[tie]
        raw = pair_json(draft.prompt, pair.chosen, pair.rejected)
        fault = RowError("PD303", "both completions rank the same")
        self.add_row(line, offset, fault, raw, ordinal)

    def table(self) -> pa.Table:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(REJECTED)
        arrays = map(arrow_array, columns, REJECTED.types)
        return pa.Table.from_arrays(list(arrays), schema=REJECTED)
