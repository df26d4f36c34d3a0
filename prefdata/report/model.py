"""The report as data: the numbers that the terminal, JSON, SARIF, HTML and the card all show."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from prefdata.store.manifest import (
    FunnelStage,
    InputSeal,
    LineClasses,
    SplitStats,
    TokenizerIdentity,
)


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class Example(_Model):
    """Where something was found."""

    source: str
    line: int
    message: str
    offset: int | None = None
    """Of the row's first byte in the decompressed file; null where it has no bytes of its own."""


class Finding(_Model):
    """One code and how often it was found."""

    code: str
    name: str
    severity: Literal["E", "W", "I"]
    count: int
    share: float
    """Of all lines that are not blank."""
    meaning: str
    advice: str
    examples: list[Example]
    """The first ones, in the order of the inputs."""
    numbers: dict[str, float] = {}
    """What was measured besides the count, by name: a share, a similarity, a rate."""


class Lengths(_Model):
    """Lengths of one part of the kept pairs, in the report's `length_unit`."""

    mean: float
    median: float
    p95: float
    max: int


class Histogram(_Model):
    """Lengths of one part of the kept pairs, in the report's `length_unit`, counted in bins."""

    edges: list[int]
    """Bin n holds lengths from edges[n] up to, but without, edges[n + 1]."""
    counts: list[int]
    """Pairs in each bin: one fewer than edges."""


class Bias(_Model):
    """How far something that is no merit of a completion tells chosen from rejected."""

    name: str
    auc: float
    """Chance that it is larger in the chosen one, ties counted half; 0.5 tells nothing."""
    low: float
    """Lower end of the 95 % interval of the AUC."""
    high: float
    pairs: int
    """Pairs that it was measured on."""
    sentence: str
    """What it means for these pairs, in one sentence."""


class SourceShare(_Model):
    """The kept pairs of one origin."""

    name: str
    pairs: int
    share: float
    """Of all kept pairs."""
    licence: str | None
    """SPDX identifier, or the text that the source gives; null where it is not known."""


class Groups(_Model):
    """How pairs share prompts and completions."""

    groups: int
    """Distinct prompts."""
    completions: int
    """Distinct completions of each prompt, summed over prompts."""
    pairs: int


class SplitProof(_Model):
    """What was compared to know that no prompt, nor a near copy of one, is in two splits."""

    threshold: float
    """Jaccard similarity from which two prompts count as near copies."""
    unit: str
    """What the similarity is counted in: `word 5-grams`, `character 8-grams`."""
    leaked: int
    """Clusters that lie in more than one split: 0, or the split is no split."""
    clusters: int
    """Groups of near copies, single prompts among them; each lies in one split as a whole."""
    largest: int
    """Prompts in the largest cluster."""


class SeverityChange(_Model):
    """A check that the config raised, lowered or switched off."""

    code: str
    was: Literal["E", "W", "I", "off"]
    now: Literal["E", "W", "I", "off"]


class ExamplePair(_Model):
    """A kept pair as a reader sees it; long texts are cut and end with an ellipsis."""

    source: str
    line: int
    prompt: str
    chosen: str
    rejected: str


class Report(_Model):
    """What was read, what was kept, and why the rest was not."""

    format: Literal["prefdata-report"] = "prefdata-report"
    format_version: Literal[1] = 1
    tool_version: str
    inputs: list[InputSeal]
    lines: LineClasses
    funnel: list[FunnelStage]
    findings: list[Finding]
    """By code."""
    splits: dict[str, SplitStats] | None
    """Null where nothing was tokenized."""
    lengths: dict[str, Lengths] | None
    """Of prompt, chosen and rejected, over all splits."""
    chosen_longer: float | None
    """Share of the pairs whose chosen side is the longer one; equal ones count half."""
    notes: list[str]
    length_unit: Literal["tokens", "characters"] = "tokens"
    """Of lengths, histograms and `chosen_longer`; characters where nothing was tokenized."""
    histograms: dict[str, Histogram] | None = None
    """Of prompt, chosen and rejected, over all splits."""
    biases: list[Bias] = []
    sources: list[SourceShare] = []
    """By share, the largest first."""
    groups: Groups | None = None
    split_proof: SplitProof | None = None
    severity_changes: list[SeverityChange] = []
    """By code."""
    languages: list[str] = []
    """BCP 47 tags of what the pairs are written in, where that is known."""
    example_pairs: list[ExamplePair] = []
    config: dict[str, Any] | None = None
    """The resolved config, without what only says where and how fast; null for a validation."""
    tokenizer: TokenizerIdentity | None = None
    fingerprint: str | None = None
    """Of the build, as in its manifest."""
