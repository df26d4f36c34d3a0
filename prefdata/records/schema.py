"""Arrow schemas of the canonical record, of rejected rows and of duplicates.

All data between reading and tokenization is a `pyarrow.Table` of one of these schemas. A record
is one pair; a raw row with ranked completions gives several, numbered by `ordinal`.
"""

import pyarrow as pa

MESSAGE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("tool_calls", pa.string()),  # JSON of a list, its keys in the order given
        pa.field("tool_call_id", pa.string()),
        pa.field("reasoning", pa.string()),
    ]
)
MESSAGES = pa.list_(pa.field("item", MESSAGE, nullable=False))

RECORDS = pa.schema(
    [
        pa.field("pair_id", pa.binary(16), nullable=False),  # blake3 of the canonical content
        pa.field("group_id", pa.binary(16), nullable=False),  # blake3 of form, prompt and tools
        pa.field("chosen_id", pa.binary(16), nullable=False),  # blake3 of only the completion
        pa.field("rejected_id", pa.binary(16), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the file, as the user named it
        pa.field("source_index", pa.int32(), nullable=False),  # its index among the inputs
        pa.field("line", pa.int64(), nullable=False),  # 1-based line, array element or row
        pa.field("offset", pa.int64(), nullable=False),  # of its first byte; -1 if it has none
        pa.field("ordinal", pa.int32(), nullable=False),  # index of the pair in its row, from 0
        pa.field("form", pa.string(), nullable=False),  # "chat" (templated) or "text" (verbatim)
        pa.field("prompt", MESSAGES, nullable=False),
        pa.field("chosen", MESSAGES, nullable=False),
        pa.field("rejected", MESSAGES, nullable=False),
        pa.field("tools", pa.string()),  # JSON of a list, its keys in the order given
        pa.field("score_chosen", pa.float64()),
        pa.field("score_rejected", pa.float64()),
        pa.field("margin", pa.float32()),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("model_chosen", pa.string()),
        pa.field("model_rejected", pa.string()),
        pa.field("chosen_rank", pa.int16()),  # 1 is best
        pa.field("rejected_rank", pa.int16()),
        pa.field("meta", pa.string(), nullable=False),  # canonical JSON of the other columns
    ]
)

REJECTED = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_index", pa.int32(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),  # -1: the whole row
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("raw", pa.binary()),  # the row's bytes; of a pair, its canonical JSON
    ]
)

DUPLICATES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_index", pa.int32(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("pair_id", pa.binary(16), nullable=False),
        pa.field("kept_source", pa.string(), nullable=False),
        pa.field("kept_line", pa.int64(), nullable=False),
        pa.field("kept_ordinal", pa.int32(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
