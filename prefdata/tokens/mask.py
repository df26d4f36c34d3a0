"""Masks of the assistant's tokens, for completions that contain other turns too."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer

from prefdata.arrow import Bools, whole
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message


def rows_with_turns(records: pa.Table) -> set[int]:
    """Return the rows with a turn in a completion that is not the assistant's."""
    rows: set[int] = set()
    for side in ("chosen", "rejected"):
        lists = whole(records[side])
        foreign = np.flatnonzero(pl.Series(lists.flatten().field("role")) != "assistant")
        ends = np.cumsum(pl.Series(lists.value_lengths()))
        rows.update(np.searchsorted(ends, foreign, side="right").tolist())
    return rows


def mask_of(text: str, spans: list[tuple[int, int]], backend: Tokenizer) -> Bools:
    """Return a mask of the tokens of a text that are in these spans of its characters."""
    offsets = backend.encode(text, add_special_tokens=False).offsets
    inside = [any(start >= a and stop <= b for a, b in spans) for start, stop in offsets]
    return np.array(inside, np.bool_)


def assistant_spans(
    text: str,
    prompt: list[Message],
    completion: list[Message],
    render: Callable[..., str],
    end: str | None,
) -> list[tuple[int, int]]:
    """Return the character spans of the assistant's turns in a dialogue's text; none if unknown.

    A turn begins at the end of the dialogue before it, with the generation prompt. It ends at the
    end of the dialogue with it or, if the template ends a last turn differently, after the next
    `end`, the EOS. `render` returns the text of messages, as that of a `Renderer` does.
    """
    spans = []
    for number, message in enumerate(completion):
        if message["role"] != "assistant":
            continue
        try:
            before = render(prompt + completion[:number], add_generation_prompt=True)
            after = render(prompt + completion[: number + 1], add_generation_prompt=False)
        except TEMPLATE_FAULTS:
            return []
        if not text.startswith(before):
            return []
        if text.startswith(after):
            spans.append((len(before), len(after)))
        elif end and end in text[len(before) :]:
            spans.append((len(before), text.index(end, len(before)) + len(end)))
        else:
            return []
    return spans
