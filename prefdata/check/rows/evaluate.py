"""Evaluation of the rules over a batch; only what the requested codes need is computed."""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check.rows.context import CheckContext
from prefdata.check.rows.frames import pair_frame
from prefdata.check.rows.rules import SUMS, flags_of, rules_of
from prefdata.check.rows.slow import LOOKS


def evaluate(
    scene: CheckContext, codes: Iterable[str], control_tokens: Sequence[str] = ()
) -> pl.DataFrame:
    """Return which rules each pair breaks: one boolean column per code, in the rules' order."""
    asked = set(codes)
    rules = {code: rule for code, rule in rules_of(scene.limits).items() if code in asked}
    names = {name for rule in rules.values() for name in rule.meta.root_names()}
    looks = {name: look for name, look in LOOKS.items() if name in names}
    names = names.union(*(look.needs for look in looks.values()))
    flags = {name: flag for name, flag in flags_of(control_tokens).items() if name in names}
    sums = {name: one for name, one in SUMS.items() if name in names}
    facts = scene.messages.lazy().select("row", **flags, **sums).collect()
    rows, height = facts["row"].to_numpy(), scene.batch.num_rows
    pairs = pair_frame(scene.batch, scene.flat).with_columns(
        *(pl.Series(name, _any(rows, facts[name], height)) for name in flags),
        *(pl.Series(name, _sum(rows, facts[name], height)) for name in sums),
    )
    seen = [pl.Series(name, look.see(scene, pairs)) for name, look in looks.items()]
    pairs = pairs.with_columns(seen)
    return pairs.select(rule.fill_null(value=False).alias(code) for code, rule in rules.items())


def _any(rows: NDArray[np.uint32], flag: pl.Series, height: int) -> NDArray[np.bool_]:
    """Return a mask of the pairs with at least one message that has the flag."""
    found = np.zeros(height, np.bool_)
    found[rows[flag.fill_null(value=False).to_numpy()]] = True
    return found


def _sum(rows: NDArray[np.uint32], values: pl.Series, height: int) -> NDArray[np.int64]:
    """Return the sum of an integer column of messages for each pair."""
    return np.bincount(rows, values.to_numpy(), height).astype(np.int64)
