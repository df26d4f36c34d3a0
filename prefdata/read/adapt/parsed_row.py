"""What a layout makes of one raw row, before it is written into columns."""

from typing import NamedTuple

from prefdata.read.adapt.ids import Messages


class Pair(NamedTuple):
    """Two completions of one prompt, and what the row says of them."""

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
    """Of chosen and rejected among the candidates of the row, where it has candidates."""


class ParsedRow(NamedTuple):
    """One row's prompt and pairs; the pairs' places in the list are their ordinals."""

    form: str
    prompt: Messages
    tools: str | None
    group_id: bytes
    pairs: list[Pair]
    weight: float
    meta: str
    completions: int = 0
    """Of the prompt, where the layout has candidates."""
