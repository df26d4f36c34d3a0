"""Near-duplicate options: a part of a build's config."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefdata.dedup.near.sketch import SketchOptions
from prefdata.dedup.near.units import Unit

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
