"""Parsed rows: the pairs of one raw row, before they are written into columns."""

from typing import NamedTuple

from prefdata.read.adapt.ids import Messages


class Pair(NamedTuple):
    """Two completions of one prompt, with the scores, models and ranks in the row."""

    chosen: Messages
    rejected: Messages
    score_chosen: float | None = None
    score_rejected: float | None = None
    margin: float | None = None
    model_chosen: str | None = None
    model_rejected: str | None = None
    chosen_rank: int | None = None
    rejected_rank: int | None = None
    tie: bool = False
    places: tuple[int, int] | None = None
    """Indices of chosen and rejected among the row's candidates, if it has candidates."""


class ParsedRow(NamedTuple):
    """Prompt and pairs of one row; a pair's index in the list is its ordinal."""

    form: str
    prompt: Messages
    tools: str | None
    group_id: bytes
    pairs: list[Pair]
    weight: float
    meta: str
    completions: int = 0
    """Number of completions of the prompt, if the layout has candidates."""
