"""Files of rejected rows and duplicates, with their source locations.

rejected/*.parquet    file, line, byte offset, code, message and raw bytes, in input order
duplicates.parquet    each copy and near-duplicate, and the pair that is kept instead
near.parquet          each near-duplicate that is only reported, and the one it is near to
"""

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrow import arrow_array, numbers_array
from prefdata.read import Limits, OpenFile, raw_rows
from prefdata.records.keys import PAIR_ID
from prefdata.records.rejected import SIDES, pair_json, rejects_of, with_raw
from prefdata.records.schema import DUPLICATES, REJECTED
from prefdata.records.text import ELEMENT_LINE
from prefdata.stages.chunk import gather, open_part
from prefdata.stages.scan import ScanResult
from prefdata.store.commit import FileDigest
from prefdata.store.staging import write_staged
from prefdata.tokens.template.render import Refusal

_SLICE_ROWS = 8192
_ORDER = [("line", "ascending"), ("ordinal", "ascending")]


def write_rejected(
    root: Path, path: Path, found: ScanResult, refusals: Mapping[int, Refusal], limits: Limits
) -> tuple[FileDigest, int]:
    """Write everything that was rejected, chunk by chunk, and return the digest and the row count.

    `refusals` are of records, by index in the keys.
    """
    rows = 0

    def write(path: Path) -> None:
        nonlocal rows
        with parquet.ParquetWriter(path.absolute(), REJECTED, compression="zstd") as writer:
            for table in _rejected_tables(root, found, refusals, limits):
                writer.write_table(table)
                rows += table.num_rows

    return write_staged(path, write), rows


def _rejected_tables(
    root: Path, found: ScanResult, refusals: Mapping[int, Refusal], limits: Limits
) -> Iterator[pa.Table]:
    """Yield the rejected rows of each chunk, in the order of the inputs."""
    at = np.array(sorted(refusals), np.int64)
    places = found.keys.select("part", "row", "line")[at].with_columns(at=at)
    by_part = {int(part): some for (part,), some in places.group_by("part", maintain_order=True)}
    raws = _raws(found, by_part, limits)
    for number, part in enumerate(found.parts):
        table = open_part(root, part.name, "rejected")
        late = by_part.get(number)
        if late is not None:
            records = gather(root, [part.name for part in found.parts], late)
            said = [refusals[place] for place in late["at"]]
            more = rejects_of(records, [s.code for s in said], [s.message for s in said])
            table = pa.concat_tables([table, with_raw(more, next(raws))]).sort_by(_ORDER)
        if table.num_rows:
            yield _with_lines(table, found.files[part.source_index].element_lines)


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


def _raws(
    found: ScanResult, late: Mapping[int, pl.DataFrame], limits: Limits
) -> Iterator[dict[int, bytes]]:
    """Yield the bytes of the late rows of each chunk that has any: their files are read again."""
    lines = {part: set(some["line"].to_list()) for part, some in late.items()}
    for file in found.files:
        index = file.file.index
        parts = [at for at, part in enumerate(found.parts) if part.source_index == index]
        if lines.keys().isdisjoint(parts):
            continue
        blocks = iter(OpenFile(file.file, limits))
        if file.is_gathered:  # rows of a chunk are anywhere in the file
            wanted = set().union(*(lines.get(at, set()) for at in parts))
            raws = {
                n: raw for block in blocks for n, raw in raw_rows(block, limits, wanted).items()
            }
            yield from (raws for at in parts if at in lines)
            continue
        for at, block in zip(parts, blocks, strict=True):
            if at in lines:
                yield raw_rows(block, limits, lines[at])


def write_duplicates(
    root: Path, path: Path, found: ScanResult, copies: pl.DataFrame
) -> tuple[FileDigest, int]:
    """Write `at`, `kept` and `similarity` as rows of DUPLICATES; return digest and row count.

    A dropped pair that is not an exact copy has its text, as it is nowhere else.
    """

    def write(path: Path) -> None:
        with parquet.ParquetWriter(path.absolute(), DUPLICATES, compression="zstd") as writer:
            for start in range(0, max(len(copies), 1), _SLICE_ROWS):
                some = copies.slice(start, _SLICE_ROWS)
                writer.write_table(_duplicates_table(root, found, some))

    return write_staged(path, write), len(copies)


def _duplicates_table(root: Path, found: ScanResult, copies: pl.DataFrame) -> pa.Table:
    """Return some duplicates as rows of DUPLICATES."""
    own, kept_mask = (found.keys[copies[name]] for name in ("at", "kept"))
    names = pl.Series([file.file.source for file in found.files])
    columns = {
        "source": names[own["source_index"]],
        "source_index": own["source_index"],
        "line": own["line"],
        "ordinal": own["ordinal"],
        "element_line": _element_lines(found, copies["at"]),
        "kept_source": names[kept_mask["source_index"]],
        "kept_line": kept_mask["line"],
        "kept_ordinal": kept_mask["ordinal"],
        "kept_element_line": _element_lines(found, copies["kept"]),
        "pair": _texts_of(root, found, copies),
    }
    arrays = {
        name: arrow_array(column.to_list(), DUPLICATES.field(name).type)
        for name, column in columns.items()
    }
    halves = own.select(PAIR_ID).to_numpy().astype(">u8", order="C")
    ids = [None, pa.py_buffer(halves.tobytes())]
    arrays["pair_id"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(own), ids)
    arrays["similarity"] = numbers_array(copies["similarity"].to_numpy())
    return pa.Table.from_arrays([arrays[name] for name in DUPLICATES.names], schema=DUPLICATES)


def _element_lines(found: ScanResult, at: pl.Series) -> pl.Series:
    """Return the line on which each pair's element begins; null if its file is not a JSON array."""
    lines = found.element_lines(at)
    if lines is None:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(at))
    keys = ("source_index", "line")
    own = found.keys.select(keys)[at]
    return own.join(lines, on=keys, how="left", maintain_order="left")[ELEMENT_LINE]


def _texts_of(root: Path, found: ScanResult, copies: pl.DataFrame) -> pl.Series:
    """Return the dropped pairs that differ from the kept ones as JSON; null for the others."""
    own, kept = (found.keys[copies[name]] for name in ("at", "kept"))
    differs = (own["pair_id_hi"] != kept["pair_id_hi"]) | (own["pair_id_lo"] != kept["pair_id_lo"])
    differs &= ~pl.Series(found.decision.kept_mask)[copies["at"]]
    records = gather(root, [part.name for part in found.parts], own.filter(differs))
    texts = [pair_json(pair).decode() for pair in records.select(SIDES).to_pylist()]
    every = pl.Series([None], dtype=pl.String).new_from_index(0, len(own))
    return every.scatter(differs.arg_true(), texts) if texts else every
