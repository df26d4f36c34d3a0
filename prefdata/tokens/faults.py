"""What can be wrong with the ids of a pair, as rules over whole columns."""

from typing import NamedTuple

import numpy as np

from prefdata.tokens.disguise import NO_ID
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.pairs import PairIds
from prefdata.tokens.ragged import Bools, Int64s, Ragged, common_prefix, cut
from prefdata.tokens.render import Refusal
from prefdata.tokens.target import Target


class Cuts(NamedTuple):
    """How many pairs a length policy made shorter."""

    prompts: int
    completions: int


def apply_length(ids: PairIds, options: TokenOptions) -> tuple[PairIds, Bools, Cuts]:
    """Pairs within `max_length` as the policy wants it, and which of them stay too long."""
    prompt, chosen, rejected = (side.lengths for side in (ids.prompt, ids.chosen, ids.rejected))
    longest = np.maximum(chosen, rejected)
    limit = options.max_length
    if limit is None:
        return ids, np.zeros(len(ids.rows), np.bool_), Cuts(0, 0)
    over = np.maximum(prompt + longest - limit, 0)
    if options.length_policy == "cut_prompt_start":
        cut_ids = ids._replace(prompt=cut(ids.prompt, np.minimum(over, prompt), prompt))
        too_long = (over > 0) & (over >= prompt)
        return cut_ids, too_long, Cuts(int(((over > 0) & ~too_long).sum()), 0)
    if options.length_policy == "cut_completion_end":
        room = np.maximum(limit - prompt, 0)
        cut_ids = ids._replace(
            chosen=_head(ids.chosen, room),
            rejected=_head(ids.rejected, room),
        )
        return cut_ids, np.zeros(len(over), np.bool_), Cuts(0, int(((over > 0) & (room > 0)).sum()))
    return ids, over > 0, Cuts(0, 0)


def find_faults(ids: PairIds, too_long: Bools, target: Target) -> list[tuple[Bools, Refusal]]:
    """For each rule, the pairs that break it; a pair counts under the first."""
    chosen, rejected = ids.chosen.lengths, ids.rejected.lengths
    same = (chosen == rejected) & (common_prefix(ids.chosen, ids.rejected) == chosen)
    bos, eos = target.token_id("bos_token"), target.token_id("eos_token")
    return [
        (
            _has(ids.prompt, NO_ID) | _has(ids.chosen, NO_ID) | _has(ids.rejected, NO_ID),
            Refusal("PD210", "the tokenizer's vocabulary makes a control token of its text"),
        ),
        (
            too_long,
            Refusal("PD710", "prompt and completion are longer than max_length"),
        ),
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
            _starts_twice(ids.prompt, bos) | _ends_twice(ids.chosen, eos, ids.rejected),
            Refusal("PD704", "BOS or EOS stands twice in a row"),
        ),
    ]


def _head(rows: Ragged, room: Int64s) -> Ragged:
    return cut(rows, np.zeros_like(room), np.minimum(rows.lengths, room))


def _has(rows: Ragged, token: int) -> Bools:
    owners = np.repeat(np.arange(len(rows.lengths)), rows.lengths)
    return np.bincount(owners[rows.values == token], minlength=len(rows.lengths)) > 0


def _starts_twice(rows: Ragged, token: int | None) -> Bools:
    """Rows [t, t, …]."""
    return _twice(rows, token, rows.offsets[:-1])


def _ends_twice(chosen: Ragged, token: int | None, rejected: Ragged) -> Bools:
    """Rows […, t, t] on either side."""
    ends = [_twice(rows, token, rows.offsets[1:] - 2) for rows in (chosen, rejected)]
    return ends[0] | ends[1]


def _twice(rows: Ragged, token: int | None, at: Int64s) -> Bools:
    long_enough = rows.lengths >= 2
    result = np.zeros(len(long_enough), np.bool_)
    if token is not None:
        places = at[long_enough]
        result[long_enough] = (rows.values[places] == token) & (rows.values[places + 1] == token)
    return result
