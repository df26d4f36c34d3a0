"""Record as JSON: the columns of `records.RECORDS`, described for readers of the format."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Turn of a dialogue."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    role: str
    """system, developer, user, assistant or tool."""
    content: str
    name: str | None = None
    tool_calls: str | None = None
    """Canonical JSON of a list of calls."""
    tool_call_id: str | None = None
    reasoning: str | None = None


class Record(BaseModel):
    """Preference pair: a prompt and two completions, of which `chosen` is preferred."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pair_id: str
    """blake3 of the canonical content, 32 hex digits."""
    group_id: str
    """blake3 of form, prompt and tools: equal for all pairs of a prompt."""
    chosen_id: str
    """blake3 of only the chosen completion, 32 hex digits."""
    rejected_id: str
    """blake3 of only the rejected completion, 32 hex digits."""
    source: str
    """The file, as the user named it."""
    source_index: int
    """Index of the file among the inputs, from 0."""
    line: int
    """1-based line, array element or row."""
    offset: int
    """Offset of the row's first byte; -1 if there is none."""
    ordinal: int
    """Index of the pair in its row, from 0."""
    form: Literal["chat", "text"]
    """`chat` is rendered by a chat template, `text` is verbatim."""
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: str | None = None
    """Canonical JSON of a list of tools."""
    score_chosen: float | None = None
    score_rejected: float | None = None
    margin: float | None = None
    weight: float = 1.0
    model_chosen: str | None = None
    model_rejected: str | None = None
    chosen_rank: int | None = None
    """1 is best."""
    rejected_rank: int | None = None
    meta: str
    """Canonical JSON of the row's other columns."""
