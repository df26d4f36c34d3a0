"""What of a record is compared: its prompt, its completions, or the whole pair."""

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
    """The text of each record, its sides parted by barriers.

    A shingle knows which side it is of, so a pair is not near the one that prefers the contrary.
    """
    sides = pl.DataFrame({side: pl.Series(records[side]) for side in SIDES[unit]})
    texts = [_text_of(side) for side in sides.columns]
    return sides.select(text=pl.concat_str(texts, separator=BARRIER))["text"]


def _text_of(side: str) -> pl.Expr:
    """All texts of a side's messages, one after the other."""
    message = pl.concat_str(
        [pl.element().struct.field(name) for name in _FIELDS], separator="\n", ignore_nulls=True
    )
    joined = pl.col(side).list.eval(message).list.join("\n")
    return joined.str.replace_all(BARRIER, " ", literal=True)
