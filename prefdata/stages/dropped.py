"""Files of rejected rows and duplicates, with their source locations.

rejected/*.parquet    file, line, byte offset, code, message and raw bytes, in input order
duplicates.parquet    each copy and near-duplicate, and the pair that is kept instead
near.parquet          each near-duplicate that is only reported, and the one it is near to
"""

from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrow import arrow_array, numbers_array
from prefdata.engine.exchange import read_parts
from prefdata.read import Block, Limits, OpenFile, raw_rows
from prefdata.records.keys import PAIR_ID
from prefdata.records.rejected import SIDES, pair_json, rejects_of, with_raw
from prefdata.records.schema import DUPLICATES, REJECTED
from prefdata.records.text import ELEMENT_LINE
from prefdata.stages.chunk import gather, open_part, read_keys
from prefdata.stages.counts import BuiltShards, leak_message
from prefdata.stages.events import CONTRADICTORY, COPY, EVENTS, EXCLUDED, LEAKED, NEAR
from prefdata.stages.filter import CONTRADICTION, EXCLUSION
from prefdata.stages.scan import ScanResult
from prefdata.stages.settle import events_of_part, late_rows
from prefdata.store.commit import FileDigest
from prefdata.store.staging import write_staged

_SLICE_ROWS = 8192
_ORDER = [("line", "ascending"), ("ordinal", "ascending")]


def write_rejected(
    path: Path, found: ScanResult, made: BuiltShards, limits: Limits
) -> tuple[FileDigest, int]:
    """Write all that was rejected, chunk by chunk, and return the digest and the row count."""
    rows = 0

    def write(path: Path) -> None:
        nonlocal rows
        with parquet.ParquetWriter(path.absolute(), REJECTED, compression="zstd") as writer:
            for table in _rejected_tables(found, made, limits):
                writer.write_table(table)
                rows += table.num_rows

    return write_staged(path, write), rows


def _rejected_tables(found: ScanResult, made: BuiltShards, limits: Limits) -> Iterator[pa.Table]:
    """Yield the rejected rows of each chunk, in the order of the inputs."""
    parts, raws = read_parts(found.root), _Raws(found, made, limits)
    for number, part in enumerate(found.parts):
        table = open_part(parts, number, "rejected")
        late = _late(found, made, number)
        if len(late):
            records = gather(parts, late["at"].to_numpy())
            more = rejects_of(records, late["code"].to_list(), late["message"].to_list())
            raw_of = raws.of(number, set(late["line"].to_list()))
            table = pa.concat_tables([table, with_raw(more, raw_of)]).sort_by(_ORDER)
        if table.num_rows:
            yield _with_lines(table, found.files[part.source_index].element_lines)


def _late(found: ScanResult, made: BuiltShards, number: int) -> pl.DataFrame:
    """Return the records of a chunk that are rejected after the checks of rows.

    Columns: `at`, `line`, `code` and `message`, in the order of the records.
    """
    parts = read_parts(found.root)
    events = events_of_part(parts, found.decisions, number).filter("dropped")
    said = [
        (event["at"], event["code"], leak_message(found, event))
        for event in events.filter(pl.col("kind") == LEAKED).iter_rows(named=True)
    ]
    for kind, code, message in (
        (EXCLUDED, "PD409", EXCLUSION),
        (CONTRADICTORY, "PD403", CONTRADICTION),
    ):
        said += [(at, code, message) for at in events.filter(pl.col("kind") == kind)["at"]]
    for paths in (made.not_drawn_paths, made.refused_paths):
        said += late_rows(parts, number, paths).iter_rows()
    schema = {"at": pl.Int64, "code": pl.String, "message": pl.String}
    late = pl.DataFrame(said, schema, orient="row").sort("at")
    keys = read_keys(parts, number).select("at", "line") if len(late) else None
    if keys is None:
        return late.with_columns(line=pl.lit(0, pl.Int64))
    return late.join(keys, on="at", how="left", maintain_order="left")


def _with_lines(table: pa.Table, lines: "array[int] | None") -> pa.Table:
    """Return rows of REJECTED with lines; those of a JSON array have numbers of elements."""
    if lines is None:
        return table
    numbers = table["line"]
    places = numbers_array(np.frombuffer(lines, np.int64)[pl.Series(numbers).to_numpy() - 1])
    for name, values in (("element", numbers), ("line", places)):
        at = REJECTED.get_field_index(name)
        table = table.set_column(at, REJECTED.field(at), values)
    return table


class _Raws:
    """Bytes of the late rows of chunks, asked for in order: their files are read again, once."""

    def __init__(self, found: ScanResult, made: BuiltShards, limits: Limits) -> None:
        self._found, self._made, self._limits = found, made, limits
        self._source, self._next = -1, 0
        self._blocks: Iterator[Block] = iter(())
        self._gathered: dict[int, bytes] = {}

    def of(self, number: int, lines: set[int]) -> dict[int, bytes]:
        """Return the bytes of some lines of a chunk."""
        source = self._found.parts[number].source_index
        own = [at for at, part in enumerate(self._found.parts) if part.source_index == source]
        file = self._found.files[source]
        if source != self._source:
            self._source, self._next = source, own[0]
            self._blocks = iter(OpenFile(file.file, self._limits))
            if file.is_gathered:  # rows of a chunk are anywhere in the file
                wanted = set[int]().union(*(self._lines(part) for part in own))
                read = (raw_rows(block, self._limits, wanted) for block in self._blocks)
                self._gathered = {line: raw for block in read for line, raw in block.items()}
        if file.is_gathered:
            return self._gathered
        block = next(islice(self._blocks, number - self._next, None))
        self._next = number + 1
        return raw_rows(block, self._limits, lines)

    def _lines(self, part: int) -> set[int]:
        return set(_late(self._found, self._made, part)["line"].to_list())


def write_duplicates(path: Path, found: ScanResult, *, dropped: bool) -> tuple[FileDigest, int]:
    """Write copies and near-duplicates as rows of DUPLICATES; return digest and row count.

    They are those that were dropped, or those that are only reported. A dropped pair that is not an
    exact copy has its text, as it is nowhere else.
    """
    rows = 0

    def write(path: Path) -> None:
        nonlocal rows
        with parquet.ParquetWriter(path.absolute(), DUPLICATES, compression="zstd") as writer:
            for some in _slices(found, dropped=dropped):
                writer.write_table(_duplicates_table(found, some))
                rows += len(some)

    return write_staged(path, write), rows


def _slices(found: ScanResult, *, dropped: bool) -> Iterator[pl.DataFrame]:
    """Yield the events of duplicates in slices of equal size, at least one."""
    asked = pl.col("kind").is_in([COPY, NEAR]), pl.col("dropped") == dropped
    waiting, is_first = pl.DataFrame(schema=EVENTS), True
    for events in found.events():
        waiting = pl.concat([waiting, events.filter(*asked)])
        while len(waiting) > _SLICE_ROWS:
            yield waiting.head(_SLICE_ROWS)
            waiting, is_first = waiting[_SLICE_ROWS:], False
    if len(waiting) or is_first:
        yield waiting


def _duplicates_table(found: ScanResult, events: pl.DataFrame) -> pa.Table:
    """Return some duplicates as rows of DUPLICATES."""
    names = pl.Series([file.file.source for file in found.files])
    columns = {
        "source": names[events["source_index"]],
        "source_index": events["source_index"],
        "line": events["line"],
        "ordinal": events["ordinal"],
        "element_line": _element_lines(found, events, ""),
        "kept_source": names[events["kept_source_index"]],
        "kept_line": events["kept_line"],
        "kept_ordinal": events["kept_ordinal"],
        "kept_element_line": _element_lines(found, events, "kept_"),
        "pair": _texts_of(found, events),
    }
    arrays = {
        name: arrow_array(column.to_list(), DUPLICATES.field(name).type)
        for name, column in columns.items()
    }
    halves = events.select(PAIR_ID).to_numpy().astype(">u8", order="C")
    ids = [None, pa.py_buffer(halves.tobytes())]
    arrays["pair_id"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(events), ids)
    arrays["similarity"] = numbers_array(events["similarity"].to_numpy())
    return pa.Table.from_arrays([arrays[name] for name in DUPLICATES.names], schema=DUPLICATES)


def _element_lines(found: ScanResult, events: pl.DataFrame, of: str) -> pl.Series:
    """Return the line on which each pair's element begins; null if its file is not a JSON array."""
    own = events.select(source_index=f"{of}source_index", line=f"{of}line")
    lines = found.element_lines(own)
    if lines is None:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(own))
    return own.join(lines, on=own.columns, how="left", maintain_order="left")[ELEMENT_LINE]


def _texts_of(found: ScanResult, events: pl.DataFrame) -> pl.Series:
    """Return the dropped pairs that differ from the kept ones as JSON; null for the others."""
    same = pl.all_horizontal(pl.col(name) == pl.col(f"kept_{name}") for name in PAIR_ID)
    differs = events.select(mask=pl.col("dropped") & ~same)["mask"]
    records = gather(read_parts(found.root), events["at"].filter(differs).to_numpy())
    texts = [pair_json(pair).decode() for pair in records.select(SIDES).to_pylist()]
    every = pl.Series([None], dtype=pl.String).new_from_index(0, len(events))
    return every.scatter(differs.arg_true(), texts) if texts else every
