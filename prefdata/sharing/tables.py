"""Token shards as Parquet, which every reader of the Hub supports, and back, byte-identical.

Parquet has no lists of fixed width for ids, nor has `datasets`: ids are hex, as in `text/`.
"""

from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from prefdata.errors import UsageError
from prefdata.store.shards import REFERENCE, TOKENS, open_parquet

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
    fields = [field.with_type(pa.string()) if field.name in _IDS else field for field in TOKENS]
    schema = pa.schema(fields + [REFERENCE.field(name) for name in more])
    with open_parquet(path, schema) as writer:
        for start in range(0, max(tokens.num_rows, 1), _ROWS):
            rows = tokens.slice(start, _ROWS)
            columns = [_to_hex(rows[field.name], field) for field in TOKENS]
            if reference is not None:
                columns += [reference[name].slice(start, _ROWS) for name in more]
            writer.write_table(pa.table(columns, schema=schema))


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema, `TOKENS` or `REFERENCE`, as one batch.

    Raises UsageError (E212) if the file has other columns.
    """
    try:
        table = parquet.read_table(path.absolute(), columns=schema.names)
        columns = [_from_hex(table[field.name], field) for field in schema]
        return pa.table(columns, schema=schema).combine_chunks()
    except (pa.ArrowInvalid, pl.exceptions.PolarsError, KeyError, ValueError) as error:
        problem = "does not have the columns of tokens"
        raise UsageError("E212", path.name, problem, "push the build again") from error


def _to_hex(column: pa.ChunkedArray, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    is_id = field.name in _IDS
    return pl.Series(column).bin.encode("hex").to_arrow().cast(pa.string()) if is_id else column


def _from_hex(column: pa.ChunkedArray, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if field.name in _IDS:
        column = pl.Series(column).str.decode("hex").to_arrow()
    return column.cast(field.type)
