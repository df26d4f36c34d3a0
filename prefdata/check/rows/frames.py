"""A batch of records as two frames: one row per message, and one row per pair."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prefdata.records.schema import MESSAGE

PARTS = ("prompt", "chosen", "rejected")
PROMPT, CHOSEN, REJECTED = range(3)
ROLES = ("system", "developer", "user", "assistant", "tool")
# Columns of records that rules of pairs read.
FACTS = (
    "score_chosen",
    "score_rejected",
    "margin",
    "chosen_rank",
    "rejected_rank",
)


class Flat(NamedTuple):
    """Dialogues of a batch, part by part: all messages concatenated, and the dialogues' lengths."""

    fields: pa.StructArray
    """Messages of the prompts, then of chosen, then of rejected."""
    lengths: NDArray[np.int64]
    """(3, rows): number of messages of each dialogue."""

    @property
    def ends(self) -> NDArray[np.int64]:
        """Return one past the last message of each dialogue, (3, rows)."""
        return np.cumsum(self.lengths.ravel()).reshape(self.lengths.shape)


def flatten(batch: pa.RecordBatch) -> Flat:
    """Concatenate the messages of all three parts; a slice of a batch gives only its own rows."""
    lists = [batch[part] for part in PARTS]
    lengths = [pl.Series(pc.list_value_length(one)).cast(pl.Int64).to_numpy() for one in lists]
    return Flat(pa.concat_arrays([one.flatten() for one in lists]), np.stack(lengths))


def message_frame(flat: Flat) -> pl.DataFrame:
    """Return one row per message: its fields, its place in the pair, the role before it."""
    num_rows = flat.lengths.shape[1]
    lengths = flat.lengths.ravel()
    starts = flat.ends.ravel() - lengths
    dialogue = np.repeat(np.arange(3 * num_rows), lengths)
    at = np.arange(len(dialogue)) - starts[dialogue]
    columns = {field.name: _column(flat.fields.field(field.name)) for field in MESSAGE}
    return pl.DataFrame(
        {
            "row": (dialogue % max(num_rows, 1)).astype(np.uint32),
            "part": (dialogue // max(num_rows, 1)).astype(np.uint8),
            "at": at.astype(np.uint32),
            "last": at == lengths[dialogue] - 1,
            "previous": _previous(flat, columns["role"], at),
            **columns,
        }
    )


def _column(values: pa.Array) -> pl.Series:
    """Return a field of the messages; an all-null field is not converted."""
    if values.null_count == len(values):
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(values))
    return pl.Series(values)


def _previous(flat: Flat, roles: pl.Series, at: NDArray[np.int64]) -> pl.Series:
    """Return the role of the previous turn; before a completion it is the prompt's last turn."""
    places = np.arange(len(at)) - 1
    firsts = np.flatnonzero(at == 0)
    for part in (CHOSEN, REJECTED):
        rows = np.flatnonzero(flat.lengths[part] > 0)
        begins = flat.ends[part][rows] - flat.lengths[part][rows]
        has_prompt = flat.lengths[PROMPT][rows] > 0
        places[begins] = np.where(has_prompt, flat.ends[PROMPT][rows] - 1, -1)
    of_prompts = firsts[firsts < flat.lengths[PROMPT].sum()]
    places[of_prompts] = -1
    known = np.where(places < 0, 0, places)
    return roles.gather(known).set(pl.Series(places < 0), None) if len(at) else roles


def pair_frame(batch: pa.RecordBatch, flat: Flat) -> pl.DataFrame:
    """Return the facts of each pair except its texts, with the number of turns of its parts."""
    columns: dict[str, Any] = {"row": np.arange(batch.num_rows, dtype=np.uint32)}
    for part, counts in zip(PARTS, flat.lengths, strict=True):
        columns[f"turns_{part}"] = counts
    columns |= {name: pl.Series(batch[name]) for name in FACTS}
    return pl.DataFrame(columns)
