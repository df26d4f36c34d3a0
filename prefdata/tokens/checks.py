"""Checks of the ids of pairs, as rules over whole columns."""

from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from prefdata.arrow import Bools, Int32s, Int64s, Ragged, common_prefix, cut
from prefdata.tokens.escape import NO_ID
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.pairs import PairIds
from prefdata.tokens.template.render import Refusal
from prefdata.tokens.tokenizer import TokenizerSpec

MAX_UNKNOWN = 0.01
END_TOKENS = 3
Float64s = NDArray[np.float64]


class Cuts(NamedTuple):
    """Masks of the pairs that a length policy shortened, by the part that it cut."""

    prompts: Bools
    completions: Bools


def apply_length(ids: PairIds, options: TokenOptions) -> tuple[PairIds, Bools, Cuts]:
    """Apply the length policy; return the ids, a mask of pairs still too long, and the cuts."""
    none = np.zeros(len(ids.rows), np.bool_)
    prompt, chosen, rejected = (side.lengths for side in ids.sides)
    limit = options.max_length
    if limit is None:
        return ids, none, Cuts(none, none)
    over = np.maximum(prompt + np.maximum(chosen, rejected) - limit, 0)
    if options.length_policy == "cut_prompt_start":
        cut_ids = ids._replace(prompt=cut(ids.prompt, np.minimum(over, prompt), prompt))
        too_long = (over > 0) & (over >= prompt)
        return cut_ids, too_long, Cuts((over > 0) & ~too_long, none)
    if options.length_policy == "cut_completion_end":
        room = np.maximum(limit - prompt, 0)
        cut_ids = ids._replace(
            chosen=cut(ids.chosen, np.zeros_like(room), np.minimum(chosen, room)),
            rejected=cut(ids.rejected, np.zeros_like(room), np.minimum(rejected, room)),
        )
        return cut_ids, none, Cuts(none, (over > 0) & (room > 0))
    return ids, over > 0, Cuts(none, none)


def find_faults(
    ids: PairIds, too_long: Bools, target: TokenizerSpec
) -> list[tuple[Bools, Refusal]]:
    """Return a mask of the pairs that break each rule; a pair counts under the first."""
    chosen, rejected = ids.chosen.lengths, ids.rejected.lengths
    same = (chosen == rejected) & (common_prefix(ids.chosen, ids.rejected) == chosen)
    bos, eos = target.token_id("bos_token"), target.token_id("eos_token")
    return [
        (
            np.any([_has(side, NO_ID) for side in ids.sides], axis=0),
            Refusal("PD210", "the tokenizer's vocabulary makes its text a control token"),
        ),
        (too_long, Refusal("PD710", "prompt and completion are longer than max_length")),
        (
            (chosen == 0) | (rejected == 0),
            Refusal("PD702", "no token of a completion is left within max_length"),
        ),
        (
            ids.prompt.lengths == 0,
            Refusal("PD712", "no token of the prompt is left before the completions"),
        ),
        (same, Refusal("PD703", "chosen and rejected are the same tokens")),
        (
            _twice(ids.prompt, bos, ids.prompt.offsets[:-1])
            | _twice(ids.chosen, eos, ids.chosen.offsets[1:] - 2)
            | _twice(ids.rejected, eos, ids.rejected.offsets[1:] - 2),
            Refusal("PD704", "BOS or EOS occurs twice in a row"),
        ),
    ]


def find_token_warnings(
    ids: PairIds, records: pa.Table, target: TokenizerSpec
) -> list[tuple[Bools, Refusal]]:
    """Return masks as `find_faults` does, for checks that run before a length policy cuts."""
    is_chat = (pl.Series(records["form"]) == "chat").to_numpy()[ids.rows]
    added = target.added_tokens.items()
    control = np.array([number for number, token in added if token.special], np.int32)
    ended = [_ends_with(side, control) for side in (ids.chosen, ids.rejected)]
    unknown = target.token_id("unk_token")
    rates = [_share_of(side, unknown) for side in ids.sides]
    return [
        (
            is_chat & ~(ended[0] & ended[1]),
            Refusal("PD705", "a completion ends without a control token"),
        ),
        (
            np.max(rates, axis=0, initial=0.0) > MAX_UNKNOWN,
            Refusal("PD709", "more than 1 % of a part's tokens are unknown to the tokenizer"),
        ),
    ]


def _ends_with(rows: Ragged, tokens: Int32s) -> Bools:
    """Return the rows with one of the tokens near their end; templates may add a line break."""
    found = np.zeros(len(rows.lengths), np.bool_)
    for back in range(1, END_TOKENS + 1):
        some = rows.lengths >= back
        found[some] |= np.isin(rows.values[rows.offsets[1:][some] - back], tokens)
    return found


def _share_of(rows: Ragged, token: int | None) -> Float64s:
    if token is None:
        return np.zeros(len(rows.lengths))
    seen = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows.values == token)])
    return np.diff(seen[rows.offsets]) / np.maximum(rows.lengths, 1)


def _has(rows: Ragged, token: int) -> Bools:
    """Return the rows that contain the token."""
    found = np.zeros(len(rows.lengths), np.bool_)
    found[np.searchsorted(rows.offsets, np.flatnonzero(rows.values == token), "right") - 1] = True
    return found


def _twice(rows: Ragged, token: int | None, at: Int64s) -> Bools:
    """Return the rows with the token at this position and at the next one."""
    long_enough = rows.lengths >= 2
    result = np.zeros(len(long_enough), np.bool_)
    if token is not None:
        places = at[long_enough]
        result[long_enough] = (rows.values[places] == token) & (rows.values[places + 1] == token)
    return result
