"""Files of rejected rows and duplicates, with their source locations.

rejected/*.parquet    file, line, byte offset, code, message and raw bytes, in input order
duplicates.parquet    each copy and near-duplicate, and the pair that is kept instead
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.arrow import arrow_array, numbers_array
from prefdata.records.keys import PAIR_ID
from prefdata.records.rejected import rejects_of
from prefdata.records.schema import DUPLICATES, REJECTED
from prefdata.stages.chunk import gather, open_part
from prefdata.stages.scan import ScanResult
from prefdata.store.commit import FileDigest
from prefdata.store.staging import write_staged
from prefdata.tokens.template.render import Refusal

_ORDER = [("line", "ascending"), ("ordinal", "ascending")]


def write_rejected(
    root: Path, path: Path, found: ScanResult, refusals: Mapping[int, Refusal]
) -> tuple[FileDigest, int]:
    """Write everything that was rejected, chunk by chunk, and return the digest and the row count.

    `refusals` are of records, by index in the keys.
    """
    rows = 0

    def write(path: Path) -> None:
        nonlocal rows
        with parquet.ParquetWriter(path.absolute(), REJECTED, compression="zstd") as writer:
            for table in _rejected_tables(root, found, refusals):
                writer.write_table(table)
                rows += table.num_rows

    return write_staged(path, write), rows


def _rejected_tables(
    root: Path, found: ScanResult, refusals: Mapping[int, Refusal]
) -> Iterator[pa.Table]:
    """Yield the rejected rows of each chunk, in the order of the inputs."""
    names = [part.name for part in found.parts]
    at = np.array(sorted(refusals), np.int64)
    places = found.keys.select("part", "row")[at].with_columns(at=at)
    by_part = {int(part): some for (part,), some in places.group_by("part", maintain_order=True)}
    for number, name in enumerate(names):
        table = open_part(root, name, "rejected")
        late = by_part.get(number)
        if late is not None:
            records = gather(root, names, late)
            said = [refusals[place] for place in late["at"]]
            more = rejects_of(records, [s.code for s in said], [s.message for s in said])
            table = pa.concat_tables([table, more]).sort_by(_ORDER)
        if table.num_rows:
            yield table


def duplicates_table(found: ScanResult) -> pa.Table:
    """Return each duplicate and the pair that is kept instead, as rows of DUPLICATES."""
    copies = found.decision.duplicates
    own, kept_mask = (found.keys[copies[name]] for name in ("at", "kept"))
    names = pl.Series([file.file.source for file in found.files])
    columns = {
        "source": names[own["source_index"]],
        "source_index": own["source_index"],
        "line": own["line"],
        "ordinal": own["ordinal"],
        "kept_source": names[kept_mask["source_index"]],
        "kept_line": kept_mask["line"],
        "kept_ordinal": kept_mask["ordinal"],
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
