"""What a build is asked to do about near-duplicates: a part of its config."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefdata.dedup.near.sketch import SketchOptions
from prefdata.dedup.near.units import Unit

PROMPT_RECALL = 0.9999


class NearDuplicates(BaseModel):
    """Which texts are the same but for some words. PD402 tells of them; at E it drops them.

    Whatever the unit, prompts that are near-duplicates lie in one split, unless PD402 is off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    unit: Unit = "prompt"
    """What is compared: the `prompt`, the `completion`s (both), or the whole `pair`."""
    threshold: Annotated[float, Field(ge=0.3, le=1)] = 0.7
    """Jaccard similarity of the sets of shingles, from which on two texts are near-duplicates."""
    words: Annotated[int, Field(ge=1, le=50)] = 5
    """Words in a shingle; in scripts without spaces, characters."""
    keep: Literal["first", "longest"] = "first"
    """Which pair of a cluster stays: the first one, or the one with the most shingles."""

    def sketch_options(self, unit: Unit) -> SketchOptions:
        """Prompts are proposed more surely: one that is missed may lie in both splits."""
        recall = PROMPT_RECALL if unit == "prompt" else SketchOptions().recall
        return SketchOptions(num_words=self.words, threshold=self.threshold, recall=recall)

    @property
    def units(self) -> tuple[Unit, ...]:
        """What sketches are made of: prompts for the split, and what PD402 looks at."""
        return ("prompt",) if self.unit == "prompt" else ("prompt", self.unit)
