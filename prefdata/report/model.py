"""Report as data: the numbers that the terminal, JSON, SARIF, HTML and the card all show."""

from typing import Any, Literal

from pydantic import Field

from prefdata.records.findings import Location
from prefdata.settings import StrictModel
from prefdata.store.manifest import (
    FunnelStage,
    InputSeal,
    LineClasses,
    SourceMix,
    SplitStats,
    TokenizerIdentity,
)


class Excerpt(StrictModel):
    """Text of one part of a row, cut around what a finding is about; private data is left out."""

    part: Literal["prompt", "chosen", "rejected", "row"]
    """Part of the pair; `row` if the row was not read as a pair."""
    role: str | None = None
    """The turn's role, if the part has several turns."""
    text: str
    marks: list[tuple[int, int]] = []
    """Passages that the finding is about: characters of the text, from and to."""

    @property
    def pieces(self) -> list[tuple[str, bool]]:
        """Return the text in pieces, and whether each is a passage that the finding is about.

        >>> Excerpt(part="row", text="abc", marks=[(1, 2)]).pieces
        [('a', False), ('b', True), ('c', False)]
        """
        found, at = list[tuple[str, bool]](), 0
        for start, end in self.marks:
            found += [(self.text[at:start], False), (self.text[start:end], True)]
            at = end
        return [*found, (self.text[at:], False)]


class Example(StrictModel):
    """Location of a finding, and its message."""

    source: str
    line: int
    message: str
    offset: int | None = None
    """Offset of the row's first byte in the decompressed file; null for Parquet and Arrow rows."""
    element: int | None = None
    """Number of the element in a JSON array, from 1; `line` is the line on which it begins."""
    excerpts: list[Excerpt] = []
    """Text of the row, for the first three locations of a finding."""

    @property
    def place(self) -> str:
        """Return the place in words: `rows.json:17 (element 3)`."""
        return str(Location(self.source, self.line, "", element=self.element))


class Finding(StrictModel):
    """Finding: one code, its count, and examples."""

    code: str
    name: str
    severity: Literal["E", "W", "I"]
    count: int
    unit: Literal["row", "pair", "word"] = "row"
    """What is counted: rows of the inputs, pairs made from them, or words (PD608)."""
    share: float
    """Share of all lines that are not blank, or of all pairs that were read."""
    meaning: str
    advice: str
    examples: list[Example]
    """The first ones, in the order of the inputs."""
    numbers: dict[str, float] = {}
    """Other measured values, by name: a share, a similarity, a rate."""


class Lengths(StrictModel):
    """Lengths of one field of the kept pairs, in the report's `length_unit`."""

    mean: float
    median: float
    p95: float
    max: int


class Histogram(StrictModel):
    """Lengths of one field of the kept pairs, in the report's `length_unit`, counted in bins."""

    edges: list[int]
    """Edges of the bins: bin n has lengths from edges[n] to below edges[n + 1]."""
    counts: list[int]
    """Pairs in each bin: one fewer than edges."""


class Bias(StrictModel):
    """Predictive power of a feature that is not a merit of a completion, such as its length."""

    name: str
    auc: float
    """Chance that the feature is larger in the chosen one, ties counted half; 0.5: no
    information."""
    low: float
    """Lower end of the 95 % interval of the AUC."""
    high: float
    """Upper end of it."""
    pairs: int
    """Number of pairs that were measured."""
    sentence: str
    """Meaning for these pairs, in one sentence."""


class SourceShare(StrictModel):
    """Kept pairs of one source."""

    name: str
    pairs: int
    share: float
    """Share of all kept pairs."""
    licence: str | None
    """SPDX identifier, or the text that the source gives; null if it is not known."""


class Groups(StrictModel):
    """Counts of distinct prompts and completions."""

    groups: int
    """Distinct prompts."""
    completions: int
    """Distinct completions of each prompt, summed over prompts."""
    pairs: int


class SplitProof(StrictModel):
    """Check that no prompt, nor a near-duplicate of one, is in two splits."""

    threshold: float
    """Jaccard similarity from which two prompts count as near-duplicates."""
    unit: str
    """Unit of the similarity: `word 5-grams`, `character 8-grams`."""
    leaked: int
    """Number of clusters that are in more than one split; 0 if the splits are sound."""
    clusters: int
    """Number of clusters of near-duplicates, including single prompts."""
    largest: int
    """Number of prompts in the largest cluster."""


class SeverityChange(StrictModel):
    """Check whose severity the config raised, lowered or switched off."""

    code: str
    was: Literal["E", "W", "I", "off"]
    now: Literal["E", "W", "I", "off"]


class ExamplePair(StrictModel):
    """Kept pair as plain text; long texts are cut and end with an ellipsis."""

    source: str
    line: int
    element: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """Number of the element in a JSON array, from 1; `line` is the line on which it begins."""
    prompt: str
    chosen: str
    rejected: str

    @property
    def place(self) -> str:
        """Return the place in words."""
        return str(Location(self.source, self.line, "", element=self.element))


class Report(StrictModel):
    """Report of a build or a validation: rows read, kept and dropped, with reasons."""

    format: Literal["prefdata-report"] = "prefdata-report"
    format_version: Literal[1] = 1
    tool_version: str
    inputs: list[InputSeal]
    lines: LineClasses
    funnel: list[FunnelStage]
    findings: list[Finding]
    """Findings, errors first, then by share."""
    splits: dict[str, SplitStats] | None
    """Statistics of each split; null if nothing was tokenized."""
    lengths: dict[str, Lengths] | None
    """Lengths of prompt, chosen and rejected, over all splits."""
    chosen_longer: float | None
    """Share of the pairs whose chosen side is the longer one; equal ones count half."""
    notes: list[str]
    length_unit: Literal["tokens", "characters"] = "tokens"
    """Unit of lengths, histograms and `chosen_longer`; characters if nothing was tokenized."""
    histograms: dict[str, Histogram] | None = None
    """Histograms of prompt, chosen and rejected, over all splits."""
    biases: list[Bias] = []
    sources: list[SourceShare] = []
    """Sources of the kept pairs, the largest first."""
    mixture: list[SourceMix] = []
    """Each source's part of train; empty if all weights are 1."""
    groups: Groups | None = None
    split_proof: SplitProof | None = None
    severity_changes: list[SeverityChange] = []
    """Changed severities, sorted by code."""
    languages: list[str] = []
    """BCP 47 tags of the prompts' languages, if known."""
    example_pairs: list[ExamplePair] = []
    config: dict[str, Any] | None = None
    """The resolved config, without `out`, `workers` and `engine`; null for a validation."""
    tokenizer: TokenizerIdentity | None = None
    fingerprint: str | None = None
    """Fingerprint of the build, as in its manifest."""
