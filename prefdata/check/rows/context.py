"""A batch of records as the checks see it; values that several checks need are computed once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.check.limits import CheckLimits
from prefdata.check.rows.frames import CHOSEN, PROMPT, REJECTED, Flat, flatten, message_frame
from prefdata.check.rows.language import languages
from prefdata.check.rows.refusal import refuse

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CheckContext:
    """Frames over one batch, each computed at first use and cached."""

    batch: pa.RecordBatch
    limits: CheckLimits
    evaluations: tuple[str, ...] = ()
    """Files that the rows must not overlap (PD503)."""

    @cached_property
    def flat(self) -> Flat:
        return flatten(self.batch)

    @cached_property
    def messages(self) -> pl.DataFrame:
        """Return the frame of `frames.message_frame`."""
        return message_frame(self.flat)

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
