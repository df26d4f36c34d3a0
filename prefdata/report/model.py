"""The report as data: the same numbers that the terminal, the card and later pages show."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from prefdata.store.manifest import FunnelStage, InputSeal, LineClasses, SplitSeal


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class Example(_Model):
    """Where something was found."""

    source: str
    line: int
    message: str


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


class Lengths(_Model):
    """Tokens of one part of the kept pairs."""

    mean: float
    median: float
    p95: float
    max: int


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
    splits: dict[str, SplitSeal] | None
    """Null where nothing was tokenized."""
    lengths: dict[str, Lengths] | None
    """Of prompt, chosen and rejected, over all splits."""
    chosen_longer: float | None
    """Share of the pairs whose chosen side has more tokens; equal ones count half."""
    notes: list[str]
