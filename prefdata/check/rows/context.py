"""A batch of records as the checks see it; values that several checks need are computed once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.language import languages
from prefdata.check.rows.refusal import refuse
from prefdata.records.schema import MESSAGE

PARTS = ("prompt", "chosen", "rejected")
PROMPT, CHOSEN, REJECTED = range(3)
ROLES = ("system", "developer", "user", "assistant", "tool")
# Columns of records that rules of pairs read.
FACTS = ("score_chosen", "score_rejected", "margin", "chosen_rank", "rejected_rank")
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CheckContext:
    """Frames over one batch, each computed at first use and cached."""

    batch: pa.RecordBatch
    limits: CheckLimits
    evaluations: tuple[str, ...] = ()
    """Files that the rows must not overlap (PD503)."""

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Return the number of messages of each dialogue, (3, rows)."""
        counts = (pc.list_value_length(self.batch[part]) for part in PARTS)
        return np.stack([pl.Series(one).cast(pl.Int64).to_numpy() for one in counts])

    @cached_property
    def messages(self) -> pl.DataFrame:
        """Return one row per message: those of all prompts, then of chosen, then of rejected.

        Columns: `row`, `part`, `at` and `last` in its dialogue, the fields, and `previous`, the
        role of the turn before it; before a completion that is the prompt's last turn.
        """
        fields = pa.concat_arrays([self.batch[part].flatten() for part in PARTS])
        columns = {field.name: _column(fields.field(field.name)) for field in MESSAGE}
        lengths = self.lengths.ravel()
        ends = np.cumsum(lengths)
        dialogue = np.repeat(np.arange(len(lengths)), lengths)
        part, row = np.divmod(dialogue, max(self.batch.num_rows, 1))
        at = np.arange(len(dialogue)) - (ends - lengths)[dialogue]
        has_prompt = (part != PROMPT) & (lengths[row] > 0)
        before = np.where(at > 0, np.arange(len(at)) - 1, np.where(has_prompt, ends[row] - 1, -1))
        return pl.DataFrame(
            {
                "row": row.astype(np.uint32),
                "part": part.astype(np.uint8),
                "at": at.astype(np.uint32),
                "last": at == lengths[dialogue] - 1,
                "previous": _gather(columns["role"], before),
                **columns,
            }
        )

    def pair_frame(self) -> pl.DataFrame:
        """Return FACTS of each pair, with the number of turns of its parts."""
        columns: dict[str, Any] = {"row": np.arange(self.batch.num_rows, dtype=np.uint32)}
        for part, counts in zip(PARTS, self.lengths, strict=True):
            columns[f"turns_{part}"] = counts
        columns |= {name: pl.Series(self.batch[name]) for name in FACTS}
        return pl.DataFrame(columns)

    @cached_property
    def last(self) -> pl.DataFrame:
        """Return `row`, `part` and `content` of the last turn of each prompt and side."""
        return self.messages.filter("last").select("row", "part", "content")

    @cached_property
    def spoken(self) -> pl.DataFrame:
        """Return `row`, `part` and `language` of the last turns whose language is known."""
        detected = self.last.select("row", "part", language=languages(self.last["content"]))
        return detected.filter(pl.col("language") != "")

    @cached_property
    def refusals(self) -> dict[int, Flags]:
        """Return, for each side, a mask of the pairs whose last turn there is a refusal."""
        sides = self.last.filter(pl.col("part") != PROMPT)
        refusing = sides.filter(refuse(sides["content"]))
        return {
            part: self.flags(refusing.filter(pl.col("part") == part)["row"])
            for part in (CHOSEN, REJECTED)
        }

    def flags(self, rows: pl.Series) -> Flags:
        """Return a mask over the pairs, True at the given rows."""
        found = np.zeros(self.batch.num_rows, np.bool_)
        found[rows.to_numpy()] = True
        return found


def _column(values: pa.Array) -> pl.Series:
    """Return a field of the messages; an all-null field is not converted."""
    if values.null_count == len(values):
        return pl.Series([None], dtype=pl.String).new_from_index(0, len(values))
    return pl.Series(values)


def _gather(values: pl.Series, places: NDArray[np.int64]) -> pl.Series:
    """Return the values at the places; a negative place gives null."""
    return values.gather(pl.Series(places).set(pl.Series(places < 0), None))
