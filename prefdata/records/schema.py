"""What a record is: one table of names, Arrow types and descriptions; and rows that are not kept.

`Message` and `Record` are that table. Their fields are the columns of RECORDS, in this order, the
JSON model for readers of the format, and the values that `read/` collects by name. A record is one
pair; a raw row with ranked completions gives several, numbered by `ordinal`. All data between
reading and tokenization is a `pyarrow.Table` of one of the schemas below.
"""

from typing import Annotated, Literal, get_args

import pyarrow as pa
from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Turn of a dialogue."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    role: Annotated[str, pa.string()]
    """system, developer, user, assistant or tool."""
    content: Annotated[str, pa.string()]
    name: Annotated[str | None, pa.string()] = None
    tool_calls: Annotated[str | None, pa.string()] = None  # its keys in the order given
    """Canonical JSON of a list of calls."""
    tool_call_id: Annotated[str | None, pa.string()] = None
    reasoning: Annotated[str | None, pa.string()] = None


def _fields_of(model: type[BaseModel]) -> list[pa.Field]:
    """Return a model's fields as Arrow fields; those that may be None are nullable."""
    return [
        pa.field(name, field.metadata[0], nullable=type(None) in get_args(field.annotation))
        for name, field in model.model_fields.items()
    ]


MESSAGE = pa.struct(_fields_of(Message))
MESSAGES = pa.list_(pa.field("item", MESSAGE, nullable=False))


class Record(BaseModel):
    """Preference pair: a prompt and two completions, of which `chosen` is preferred."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pair_id: Annotated[str, pa.binary(16)]
    """blake3 of the canonical content, 32 hex digits."""
    group_id: Annotated[str, pa.binary(16)]
    """blake3 of form, prompt and tools: equal for all pairs of a prompt."""
    chosen_id: Annotated[str, pa.binary(16)]
    """blake3 of only the chosen completion, 32 hex digits."""
    rejected_id: Annotated[str, pa.binary(16)]
    """blake3 of only the rejected completion, 32 hex digits."""
    source: Annotated[str, pa.string()]
    """The file, as the user named it."""
    source_index: Annotated[int, pa.int32()]
    """Index of the file among the inputs, from 0."""
    line: Annotated[int, pa.int64()]
    """1-based line, array element or row."""
    offset: Annotated[int, pa.int64()]
    """Offset of the row's first byte; -1 if there is none."""
    ordinal: Annotated[int, pa.int32()]
    """Index of the pair in its row, from 0."""
    form: Annotated[Literal["chat", "text"], pa.string()]
    """`chat` is rendered by a chat template, `text` is verbatim."""
    prompt: Annotated[list[Message], MESSAGES]
    chosen: Annotated[list[Message], MESSAGES]
    rejected: Annotated[list[Message], MESSAGES]
    tools: Annotated[str | None, pa.string()] = None  # its keys in the order given
    """Canonical JSON of a list of tools."""
    score_chosen: Annotated[float | None, pa.float64()] = None
    score_rejected: Annotated[float | None, pa.float64()] = None
    margin: Annotated[float | None, pa.float32()] = None
    weight: Annotated[float, pa.float32()] = 1.0
    model_chosen: Annotated[str | None, pa.string()] = None
    model_rejected: Annotated[str | None, pa.string()] = None
    chosen_rank: Annotated[int | None, pa.int16()] = None
    """1 is best."""
    rejected_rank: Annotated[int | None, pa.int16()] = None
    meta: Annotated[str, pa.string()]
    """Canonical JSON of the row's other columns."""


RECORDS = pa.schema(_fields_of(Record))
_LOCATION = [RECORDS.field(name) for name in ("source", "source_index", "line", "ordinal")]

REJECTED = pa.schema(
    [
        *_LOCATION[:3],
        RECORDS.field("offset"),
        RECORDS.field("ordinal"),  # -1: the whole row
        pa.field("element", pa.int64()),  # number in a JSON array; `line` is where it begins
        pa.field("code", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("raw", pa.binary()),  # the row's bytes in its file; of a table, the row as JSON
        pa.field("pair", pa.string()),  # canonical JSON of the pair, if the row was read as one
    ]
)

DUPLICATES = pa.schema(
    [
        *_LOCATION,
        RECORDS.field("pair_id"),
        pa.field("element_line", pa.int64()),  # of a JSON array, whose `line` is a number
        pa.field("kept_source", pa.string(), nullable=False),
        pa.field("kept_line", pa.int64(), nullable=False),
        pa.field("kept_ordinal", pa.int32(), nullable=False),
        pa.field("kept_element_line", pa.int64()),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("pair", pa.string()),  # canonical JSON; of a copy null, as its text is kept
    ]
)
