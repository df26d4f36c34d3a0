"""Masks of the assistant's tokens, for completions that contain other turns too."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer

from prefdata.arrow import whole
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message
from prefdata.tokens.escape import EscapingRenderer
from prefdata.arrow import Bools
from prefdata.tokens.template.render import Renderer


class Dialogue(NamedTuple):
    """A prompt, a completion of several turns, and the tools that they may call."""

    prompt: list[Message]
    completion: list[Message]
    tools: list[Any] | None


def rows_with_turns(column: pa.ChunkedArray) -> list[int]:
    """Return the rows whose completion contains a turn that is not the assistant's."""
    lists = whole(column)
    roles = lists.flatten().field("role")
    foreign = np.flatnonzero(pl.Series(roles) != "assistant")
    ends = np.cumsum(pl.Series(lists.value_lengths()))
    return sorted({int(row) for row in np.searchsorted(ends, foreign, side="right")})


def completion_mask(
    dialogue: Dialogue, renderer: Renderer | EscapingRenderer, backend: Tokenizer
) -> Bools | None:
    """Return a mask of the assistant's tokens in the whole text; None if turns are not found."""
    try:
        whole, spans = _assistant_spans(dialogue, renderer)
    except TEMPLATE_FAULTS:
        return None
    if spans is None:
        return None
    offsets = backend.encode(whole, add_special_tokens=False).offsets
    mask = np.zeros(len(offsets), np.bool_)
    for number, (start, stop) in enumerate(offsets):
        mask[number] = any(start >= a and stop <= b for a, b in spans)
    return mask


def _assistant_spans(
    dialogue: Dialogue, renderer: Renderer | EscapingRenderer
) -> tuple[str, list[tuple[int, int]] | None]:
    """Return the whole text and the character spans of the assistant's turns in it.

    A turn begins at the end of the dialogue before it, with the generation prompt. It ends at the
    end of the dialogue with it or, if the template ends a last turn differently, after the next
    EOS.
    """
    prompt, completion, tools = dialogue
    whole = renderer.render(prompt + completion, tools, add_generation_prompt=False)
    end_of_turn = renderer.end_of_turn
    spans = []
    for number, message in enumerate(completion):
        if message["role"] != "assistant":
            continue
        before = renderer.render(prompt + completion[:number], tools, add_generation_prompt=True)
        after = renderer.render(
            prompt + completion[: number + 1], tools, add_generation_prompt=False
        )
        if not whole.startswith(before):
            return whole, None
        if whole.startswith(after):
            spans.append((len(before), len(after)))
        elif end_of_turn and end_of_turn in whole[len(before) :]:
            spans.append((len(before), whole.index(end_of_turn, len(before)) + len(end_of_turn)))
        else:
            return whole, None
    return whole, spans
