"""A batch of records to which pair breaks which rule: nothing is evaluated that nobody asks for."""

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
    """Which rules each pair breaks: one boolean column a code, in the order of the rules."""
    asked = set(codes)
    rules = {code: rule for code, rule in rules_of(scene.limits).items() if code in asked}
    names = {name for rule in rules.values() for name in rule.meta.root_names()}
    looks = {name: look for name, look in LOOKS.items() if name in names}
    names = names.union(*(look.needs for look in looks.values()))
    flags = {name: flag for name, flag in flags_of(control_tokens).items() if name in names}
    sums = {name: one for name, one in SUMS.items() if name in names}
    told = scene.messages.lazy().select("row", **flags, **sums).collect()
    rows, height = told["row"].to_numpy(), scene.batch.num_rows
    pairs = pair_frame(scene.batch, scene.flat).with_columns(
        *(pl.Series(name, _any(rows, told[name], height)) for name in flags),
        *(pl.Series(name, _sum(rows, told[name], height)) for name in sums),
    )
    seen = [pl.Series(name, look.see(scene, pairs)) for name, look in looks.items()]
    pairs = pairs.with_columns(seen)
    return pairs.select(rule.fill_null(value=False).alias(code) for code, rule in rules.items())


def _any(rows: NDArray[np.uint32], flag: pl.Series, height: int) -> NDArray[np.bool_]:
    """Whether a message of each pair has the flag."""
    found = np.zeros(height, np.bool_)
    found[rows[flag.fill_null(value=False).to_numpy()]] = True
    return found


def _sum(rows: NDArray[np.uint32], values: pl.Series, height: int) -> NDArray[np.int64]:
    """Whole numbers of messages, added up for each pair."""
    return np.bincount(rows, values.to_numpy(), height).astype(np.int64)
