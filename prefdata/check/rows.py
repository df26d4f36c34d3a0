"""Records to kept records and refused ones, by the rules and their severities."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from prefdata.check.catalog import CHECKS, Severity
from prefdata.check.rules import DIFFERENCES, RULES, flags_of, normalized
from prefdata.check.severity import resolve_severity
from prefdata.check.tools import is_malformed
from prefdata.records import MESSAGE, RECORDS, REJECTED
from prefdata.rejects import rejects_of

NO_CHANGES: Mapping[str, str] = MappingProxyType({})
PARTS = ("prompt", "chosen", "rejected")


def check_rows(
    records: pa.Table,
    *,
    severity: Mapping[str, str] = NO_CHANGES,
    control_tokens: Sequence[str] = (),
) -> tuple[pa.Table, pa.Table]:
    """Kept records, and rows of REJECTED for those that break a rule of severity E.

    `control_tokens` are the added tokens of the target tokenizer (PD210).
    """
    kept, refused = (
        [pa.Table.from_batches([], schema=RECORDS)],
        [pa.Table.from_batches([], schema=REJECTED)],
    )
    codes = _codes_at("E", severity)
    for batch in records.to_batches():
        broken = _first_broken(batch, codes, control_tokens)
        table = pa.Table.from_batches([batch])
        kept.append(table.filter(broken.is_null().to_arrow()))
        refused.append(_refused(table, broken))
    return pa.concat_tables(kept), pa.concat_tables(refused)


def find_rows(
    records: pa.Table,
    *,
    severity: Mapping[str, str] = NO_CHANGES,
    control_tokens: Sequence[str] = (),
) -> pa.Table:
    """Rows of REJECTED's form for what is only reported: rules of severity W, one row a finding."""
    found = [
        _refused(pa.Table.from_batches([batch]), _first_broken(batch, [code], control_tokens))
        for batch in records.to_batches()
        for code in _codes_at("W", severity)
    ]
    return pa.concat_tables([pa.Table.from_batches([], schema=REJECTED), *found])


def _codes_at(level: Severity, changes: Mapping[str, str]) -> list[str]:
    resolved = resolve_severity(changes)
    return [code for code in RULES if resolved[code] == level]


def _first_broken(
    batch: pa.RecordBatch, codes: Sequence[str], control_tokens: Sequence[str]
) -> pl.Series:
    """The code of the first rule that each pair breaks, or null."""
    rules = [pl.when(RULES[code]).then(pl.lit(code)) for code in codes]
    first = pl.coalesce(*rules) if rules else pl.lit(None, pl.String)
    return _pairs(batch, control_tokens).with_columns(code=first)["code"]


def _pairs(batch: pa.RecordBatch, control_tokens: Sequence[str]) -> pl.DataFrame:
    """One row a pair: the counts of its messages' flags, and its sides as compared text."""
    messages = pl.concat([_messages(batch, part) for part in PARTS])
    messages = messages.with_columns(malformed=_malformed(messages, batch["tools"]))
    counts = messages.group_by("row").agg(
        flag.sum().cast(pl.Int64).alias(name) for name, flag in flags_of(control_tokens).items()
    )
    empty = np.minimum(_lengths(batch["chosen"]), _lengths(batch["rejected"])) == 0
    rows = pl.DataFrame({"row": np.arange(batch.num_rows), "one_side_empty": empty})
    pairs = rows.join(counts, on="row", how="left", maintain_order="left")
    return pairs.with_columns(pl.col(pl.Int64).fill_null(0), same=_same(pairs, messages))


def _same(pairs: pl.DataFrame, messages: pl.DataFrame) -> pl.Series:
    """Whether the sides of each pair are equal once normalized.

    Normalizing is slow, so it is done only where the cheap counts of both sides agree; neither
    spaces nor Unicode forms change how many commas and full stops a text has.
    """
    alike = pairs.filter(pl.all_horizontal(pl.col(name) == 0 for name in DIFFERENCES))["row"]
    sides = messages.filter(pl.col("row").is_in(alike.implode()), pl.col("part") != "prompt")
    fields = [pl.col(name).fill_null("") for name in ("role", "tool_calls", "reasoning")]
    one = pl.concat_str(normalized(pl.col("content")), *fields, separator="\x1f")
    texts = sides.group_by("row").agg(
        one.filter(pl.col("part") == part).str.join("\x1e").alias(part) for part in PARTS[1:]
    )
    same = texts.filter(pl.col("chosen") == pl.col("rejected"))["row"]
    return pairs["row"].is_in(same.implode())


def _messages(batch: pa.RecordBatch, part: str) -> pl.DataFrame:
    """The messages of one part, one below the other, each with its pair's place in the batch."""
    lists = batch[part]
    lengths = _lengths(lists)
    flat = lists.flatten()
    last = np.zeros(len(flat), dtype=bool)
    last[np.cumsum(lengths)[lengths > 0] - 1] = True
    columns = {field.name: pl.Series(flat.field(field.name)) for field in MESSAGE}
    rows = np.repeat(np.arange(batch.num_rows), lengths)
    return pl.DataFrame({"row": rows, "last": last, **columns}).with_columns(part=pl.lit(part))


def _lengths(lists: pa.Array) -> np.ndarray[Any, np.dtype[np.int32]]:
    return pl.Series(pc.list_value_length(lists)).to_numpy()


def _malformed(messages: pl.DataFrame, tools: pa.Array) -> pl.Series:
    """Which messages hold tool calls or results that cannot be rendered."""
    flags = np.zeros(len(messages), dtype=bool)
    special = pl.col("tool_calls").is_not_null() | (pl.col("role") == "tool")
    suspects = messages.with_row_index("at").filter(special)
    for message in suspects.iter_rows(named=True):
        has_tools = tools[message["row"]].is_valid
        flags[message["at"]] = is_malformed(message, has_tools=has_tools)
    return pl.Series("malformed", flags)


def _refused(pairs: pa.Table, broken: pl.Series) -> pa.Table:
    places = broken.is_not_null().arg_true()
    codes: list[Any] = broken.gather(places).to_list()
    rows = pairs.take(places.to_arrow())
    messages = [f"{CHECKS[code].name}: {CHECKS[code].meaning}" for code in codes]
    return rejects_of(rows, codes, messages)
