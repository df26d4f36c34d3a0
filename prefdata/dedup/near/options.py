"""Near-duplicate options, a part of a build's config, and the texts that they select."""

from typing import Annotated, Literal

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from prefdata.dedup.near.letters import BARRIER
from prefdata.dedup.near.sketch import SketchOptions

Unit = Literal["prompt", "completion", "pair"]
SIDES: dict[Unit, tuple[str, ...]] = {
    "prompt": ("prompt",),
    "completion": ("chosen", "rejected"),
    "pair": ("prompt", "chosen", "rejected"),
}
_FIELDS = ("reasoning", "content", "tool_calls")
PROMPT_RECALL = 0.9999


class NearDuplicates(BaseModel):
    """Texts that are nearly the same. PD402 reports them; at severity E it drops them.

    For any unit, prompts that are near-duplicates are kept in one split, unless PD402 is off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    unit: Unit = "prompt"
    """Text to compare: the `prompt`, the `completion`s (both), or the whole `pair`."""
    threshold: Annotated[float, Field(ge=0.3, le=1)] = 0.7
    """Lowest Jaccard similarity, of the sets of shingles, of two near-duplicates."""
    words: Annotated[int, Field(ge=1, le=50)] = 5
    """Words per shingle; in scripts without spaces, characters."""
    keep: Literal["first", "longest"] = "first"
    """Pair of a cluster to keep: the first one, or the one with the most shingles."""

    def sketch_options(self, unit: Unit) -> SketchOptions:
        """Return options for a unit; prompts need a higher recall, since a missed one is a leak."""
        recall = PROMPT_RECALL if unit == "prompt" else SketchOptions().recall
        return SketchOptions(num_words=self.words, threshold=self.threshold, recall=recall)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Return the units to sketch: prompts for the split, and the unit that PD402 compares."""
        return ("prompt",) if self.unit == "prompt" else ("prompt", self.unit)


def unit_texts(records: pa.Table, unit: Unit) -> pl.Series:
    """Return the text of each record, with barriers between its sides.

    Shingles of different sides differ, so a pair is not near the one that prefers the opposite.
    """
    sides = pl.DataFrame({side: pl.Series(records[side]) for side in SIDES[unit]})
    texts = [_text_of(side) for side in sides.columns]
    return sides.select(text=pl.concat_str(texts, separator=BARRIER))["text"]


def _text_of(side: str) -> pl.Expr:
    """Join the texts of a side's messages."""
    message = pl.concat_str(
        [pl.element().struct.field(name) for name in _FIELDS], separator="\n", ignore_nulls=True
    )
    joined = pl.col(side).list.eval(message).list.join("\n")
    return joined.str.replace_all(BARRIER, " ", literal=True)
