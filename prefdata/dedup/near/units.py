"""Compared parts of a record: its prompt, its completions, or the whole pair."""

from typing import Literal

import polars as pl
import pyarrow as pa

from prefdata.dedup.near.letters import BARRIER

Unit = Literal["prompt", "completion", "pair"]
SIDES: dict[Unit, tuple[str, ...]] = {
    "prompt": ("prompt",),
    "completion": ("chosen", "rejected"),
    "pair": ("prompt", "chosen", "rejected"),
}
_FIELDS = ("reasoning", "content", "tool_calls")


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
