"""Token shards: Arrow IPC files (a truncated file does not open), memory-mapped, one batch each."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from prefdata.errors import UsageError

_IDS = pa.list_(pa.field("item", pa.int32(), nullable=False))
_MASK = pa.list_(pa.field("item", pa.bool_(), nullable=False))

TOKENS = pa.schema(
    [
        pa.field("pair_id", pa.binary(16), nullable=False),
        pa.field("group_id", pa.binary(16), nullable=False),  # rows of a group are adjacent
        pa.field("prompt_ids", _IDS, nullable=False),
        pa.field("chosen_ids", _IDS, nullable=False),  # without the prompt
        pa.field("rejected_ids", _IDS, nullable=False),
        pa.field("chosen_mask", _MASK),  # only if a turn is not the assistant's
        pa.field("rejected_mask", _MASK),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("margin", pa.float32()),
        pa.field("chosen_rank", pa.int16()),
        pa.field("rejected_rank", pa.int16()),
    ]
)

TOKEN_LOGPS = pa.list_(pa.field("item", pa.float32(), nullable=False))
REFERENCE = pa.schema(
    [
        pa.field("pair_id", pa.binary(16), nullable=False),
        pa.field("ref_chosen_logps", pa.float32(), nullable=False),  # sums, in nats
        pa.field("ref_rejected_logps", pa.float32(), nullable=False),
        pa.field("ref_chosen_token_logps", TOKEN_LOGPS, nullable=False),
        pa.field("ref_rejected_token_logps", TOKEN_LOGPS, nullable=False),
    ]
)
"""Reference log-probs, in the row order of the tokens."""


def write_shard(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow file of one batch, so that its columns map without a copy."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)


def open_parquet(path: Path, schema: pa.Schema) -> parquet.ParquetWriter:
    """Open a Parquet file of which a changed row changes few bytes."""
    return parquet.ParquetWriter(
        path.absolute(),  # pyarrow reads `a:b` as a URL
        schema,
        compression="zstd",
        write_page_index=True,
        use_content_defined_chunking=True,
    )


def read_shard(path: Path, *, rows: int, schema: pa.Schema = TOKENS) -> pa.Table:
    """Map a shard into memory; refuse it if its rows or columns are not as expected."""
    remedy = "build again with --replace"
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid as error:
        raise UsageError("E137", str(path), "is not a complete Arrow file", remedy) from error
    if table.num_rows != rows:
        problem = f"has {table.num_rows:,} rows; {rows:,} are expected"
        raise UsageError("E137", str(path), problem, remedy)
    if not table.schema.equals(schema):
        problem = f"has columns {table.schema.names}; {schema.names} are expected"
        raise UsageError("E137", str(path), problem, remedy)
    return table
