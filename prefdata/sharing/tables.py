"""Token shards as Parquet, which every reader of the Hub supports, and back, byte-identical.

Parquet has no lists of fixed width for ids, nor has `datasets`: ids are hex, as in `text/`.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from prefdata.errors import UsageError
from prefdata.store.shards import REFERENCE, TOKENS

_ROWS = 8192  # rows per row group: a few megabytes
_IDS = ("pair_id", "group_id")


def write_parquet(path: Path, tokens: pa.Table, reference: pa.Table | None = None) -> None:
    """Write a shard's rows, and the log-probs of a reference if they are given.

    Raises UsageError (E212) if the two are not of the same pairs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if reference is not None and not tokens["pair_id"].equals(reference["pair_id"]):
        problem = "has log-probs of other pairs than the tokens"
        raise UsageError("E212", path.name, problem, "run `dpo-ref` again")
    more = [] if reference is None else REFERENCE.names[1:]
    fields = [_hex_field(field) for field in TOKENS] + [REFERENCE.field(name) for name in more]
    with parquet.ParquetWriter(
        path.absolute(),
        pa.schema(fields),
        compression="zstd",
        write_page_index=True,
        use_content_defined_chunking=True,
    ) as writer:
        for start in range(0, max(tokens.num_rows, 1), _ROWS):
            rows = tokens.slice(start, _ROWS)
            columns = [_to_hex(rows[field.name], field) for field in TOKENS]
            if reference is not None:
                columns += [reference[name].slice(start, _ROWS) for name in more]
            writer.write_table(pa.table(columns, schema=pa.schema(fields)))


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema, `TOKENS` or `REFERENCE`, as one batch.

    Raises UsageError (E212) if the file has other columns.
    """
    try:
        table = parquet.read_table(path.absolute(), columns=schema.names)
        columns = [_from_hex(table[field.name], field) for field in schema]
        return pa.table(columns, schema=schema).combine_chunks()
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        problem = "does not have the columns of tokens"
        raise UsageError("E212", path.name, problem, "push the build again") from error


def _hex_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.string(), nullable=False) if field.name in _IDS else field


def _to_hex(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in _IDS:
        return column
    return pa.chunked_array([[value.hex() for value in column.to_pylist()]], pa.string())


def _from_hex(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in _IDS:
        return column.cast(field.type)
    return pa.chunked_array(list(_unhex(column)), pa.binary(16))


def _unhex(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    for chunk in column.chunks:
        yield pa.array([bytes.fromhex(value) for value in chunk.to_pylist()], pa.binary(16))
