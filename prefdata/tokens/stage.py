"""Token stage of a build: a table of records in, a table of tokens out."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from prefdata.arrow import Bools, Int64s, Ragged, numbers_array, take, to_arrow
from prefdata.store.shards import TOKENS
from prefdata.tokens.checks import apply_length, find_faults, find_token_warnings
from prefdata.tokens.escape import SIDES
from prefdata.tokens.options import FIXED_CODES, TokenOptions
from prefdata.tokens.pairs import Masks, PairIds, encode_records
from prefdata.tokens.template.render import Refusal
from prefdata.tokens.tokenizer import TokenizerSpec

MOST_PLACES = 1000
"""Records whose places are kept for each code: as many as a report in SARIF names."""


class TokenRows(NamedTuple):
    """Tokens of a table of records; `kept` and `tokens` have the same rows in the same order."""

    tokens: pa.Table
    kept: pa.Table
    refusals: dict[int, Refusal]
    """Reason why a record was not kept, by row."""
    findings: dict[str, int]
    """Numbers of kept pairs that were cut or have a warning, by code."""
    first: dict[str, list[int]]
    """The first of these records, by code."""
    note: str | None


def encode_table(records: pa.Table, target: TokenizerSpec, options: TokenOptions) -> TokenRows:
    """Encode records to tokens; return the refused ones with their codes."""
    ids, masks, refusals, note, seen = encode_records(records, target, options)
    found = {"PD714": ids.rows[ids.moved].tolist()}
    odd = find_token_warnings(ids, records, target)
    ids, too_long, cuts = apply_length(ids, options)
    found |= {
        "PD708": ids.rows[cuts.prompts].tolist(),
        "PD713": ids.rows[cuts.completions].tolist(),
    }
    for broken, refusal in [*find_faults(ids, too_long, target), *odd]:
        rows = ids.rows[broken].tolist()
        if refusal.code in FIXED_CODES or options.refuses(refusal.code):
            refusals = {**dict.fromkeys(rows, refusal), **refusals}
        else:
            found[refusal.code] = rows
    refusals = {**_empty_masks(ids, masks), **refusals}
    kept_mask = np.array([row not in refusals for row in ids.rows.tolist()], np.bool_)
    found = _kept(
        {**found, **{code: sorted(rows) for code, rows in seen.items()}}, refusals, options
    )
    kept = records.take(numbers_array(ids.rows[kept_mask]))
    tokens = _token_table(kept, _select(ids, kept_mask), masks)
    counts = {code: len(rows) for code, rows in found.items()}
    first = {code: rows[:MOST_PLACES] for code, rows in found.items()}
    return TokenRows(tokens, kept, dict(sorted(refusals.items())), counts, first, note)


def _kept(
    found: dict[str, list[int]], refusals: dict[int, Refusal], options: TokenOptions
) -> dict[str, list[int]]:
    """Return the records with each code that were not refused, of the codes that are reported."""
    kept = {
        code: [row for row in rows if row not in refusals]
        for code, rows in sorted(found.items())
        if options.reports(code)
    }
    return {code: rows for code, rows in kept.items() if rows}


def _select(ids: PairIds, kept_mask: Bools) -> PairIds:
    at = np.flatnonzero(kept_mask)
    prompt, chosen, rejected = (take(side, at) for side in ids.sides)
    return PairIds(ids.rows[at], prompt, chosen, rejected, ids.moved[at])


def _empty_masks(ids: PairIds, masks: Masks) -> dict[int, Refusal]:
    message = "no token of a completion can be identified as the assistant's"
    lengths = zip(ids.rows.tolist(), ids.chosen.lengths, ids.rejected.lengths, strict=True)
    return {
        row: Refusal("PD706", message)
        for row, chosen, rejected in lengths
        if row in masks and not (masks[row][0][:chosen].any() and masks[row][1][:rejected].any())
    }


def _token_table(kept: pa.Table, ids: PairIds, masks: Masks) -> pa.Table:
    columns = {name: kept[name] for name in TOKENS.names if name in kept.column_names}
    for side, ragged in zip(SIDES, ids.sides, strict=True):
        columns[f"{side}_ids"] = to_arrow(ragged, TOKENS.field(f"{side}_ids").type)
    columns["chosen_mask"] = _mask_column(ids.rows, ids.chosen, masks, 0)
    columns["rejected_mask"] = _mask_column(ids.rows, ids.rejected, masks, 1)
    return pa.table([columns[name] for name in TOKENS.names], schema=TOKENS).combine_chunks()


def _mask_column(numbers: Int64s, rows: Ragged, masks: Masks, side: int) -> pa.Array:
    kind = TOKENS.field("chosen_mask").type
    if not masks:
        return pa.nulls(len(numbers), kind)
    values = [
        masks[row][side][:length].tolist() if row in masks else None
        for row, length in zip(numbers.tolist(), rows.lengths, strict=True)
    ]
    return pa.array(values, kind)
