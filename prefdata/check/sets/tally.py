"""Sums over the profiles of pairs, which parts of a set have one by one, and which add up.

Values are counted, not sampled or binned: an area under a curve or a quantile from these counts is
that of all pairs. A tally is as large as the number of different lengths and names, not of pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.check.rows.profile import FEATURES
from prefdata.records.findings import EXAMPLES

Values = NDArray[Any]
LENGTH = "chars"
SIDES = ("chosen", "rejected")
_VALUES: dict[str, Any] = {
    "feature": pl.String,
    "side": pl.String,
    "value": pl.Int64,
    "num": pl.Int64,
}
_GAMES: dict[str, Any] = {
    "first": pl.String,
    "second": pl.String,
    "num": pl.Int64,
    "won": pl.Int64,
    "at": pl.Int64,
}
_NAMES: dict[str, Any] = {
    "source_index": pl.Int32,
    "origin": pl.String,
    "licence": pl.String,
    "num": pl.Int64,
    "at": pl.List(pl.Int64),
}
_LANGUAGES: dict[str, Any] = {"language": pl.String, "num": pl.Int64, "at": pl.Int64}


class Tally(NamedTuple):
    """Sums over pairs; `at` is the index of the first pair, or of the first few."""

    rows: int = 0
    at: int | None = None
    values: pl.DataFrame = pl.DataFrame(schema=_VALUES)
    """Numbers of sides with each value of a feature; of features but length, where sides differ."""
    wins: Mapping[str, tuple[int, int, int]] = MappingProxyType({})
    """Pairs by feature, those whose chosen side has more of it, and those with as much."""
    games: pl.DataFrame = pl.DataFrame(schema=_GAMES)
    """Pairs of two known models, by name, and those that the first one won."""
    positions: int = 0
    """Pairs of which the answer that raters saw first is known."""
    chosen_first: int = 0
    names: pl.DataFrame = pl.DataFrame(schema=_NAMES)
    """Pairs by input, origin and licence."""
    languages: pl.DataFrame = pl.DataFrame(schema=_LANGUAGES)

    def of(self, feature: str) -> tuple[int, int, int]:
        """Return the pairs measured for a feature, those with more, and those with as much."""
        return self.wins.get(feature, (0, 0, 0))

    def counts(self, feature: str, side: str) -> tuple[Values, Values]:
        """Return the values of a feature on a side, sorted, and how many pairs have each."""
        own = self.values.filter(pl.col("feature") == feature, pl.col("side") == side).sort("value")
        return own["value"].to_numpy(), own["num"].to_numpy()


def tally_of(frame: pl.DataFrame) -> Tally:
    """Return the sums over a frame with the columns of PROFILE and `at`, in the order of `at`."""
    if frame.is_empty():
        return Tally(wins={})  # a worker may send it
    if "source_index" not in frame.columns:
        frame = frame.with_columns(source_index=pl.lit(0, pl.Int32))
    at = pl.col("at").cast(pl.Int64)
    positions = frame["chosen_first"].drop_nulls()
    sides = {name: _sides(frame, name) for name in (LENGTH, *FEATURES)}
    counted = [
        _counted(name, side, values)
        for name, (chosen, rejected) in sides.items()
        for side, values in zip(SIDES, (chosen, rejected), strict=True)
    ]
    counted.append(_counted(LENGTH, "prompt", frame["chars_prompt"].to_numpy()))
    wins = {
        name: (len(chosen), int((chosen > rejected).sum()), int((chosen == rejected).sum()))
        for name, (chosen, rejected) in sides.items()
    }
    texts = pl.col("origin", "licence", "language").cast(pl.String)
    named = frame.select("source_index", texts, at=at)
    return Tally(
        len(frame),
        int(frame["at"][0]),
        pl.concat([pl.DataFrame(schema=_VALUES), *(one for one in counted if len(one))]),
        wins,
        _games(frame),
        len(positions),
        int(positions.sum()),
        named.group_by("source_index", "origin", "licence")
        .agg(num=pl.len().cast(pl.Int64), at=pl.col("at").head(EXAMPLES))
        .select(list(_NAMES)),
        named.group_by("language")
        .agg(num=pl.len().cast(pl.Int64), at=pl.col("at").min())
        .select(list(_LANGUAGES)),
    )


def _sides(frame: pl.DataFrame, feature: str) -> tuple[Values, Values]:
    """Return both sides' values of a feature, of the pairs on which it is measured."""
    chosen, rejected = (frame[f"{feature}_{side}"].to_numpy() for side in SIDES)
    if feature == LENGTH:
        return chosen, rejected
    differing = chosen != rejected
    return chosen[differing], rejected[differing]


def _counted(feature: str, side: str, values: Values) -> pl.DataFrame:
    """Return the numbers of sides with each value."""
    found, nums = np.unique(values, return_counts=True)
    texts = {"feature": [feature] * len(found), "side": [side] * len(found)}
    numbers = {"value": found.astype(np.int64), "num": nums.astype(np.int64)}
    return pl.DataFrame(texts | numbers, _VALUES)


def _games(frame: pl.DataFrame) -> pl.DataFrame:
    one, other = (pl.col(f"model_{side}").cast(pl.String) for side in SIDES)
    met = frame.filter(one.is_not_null() & other.is_not_null()).select(
        first=pl.min_horizontal(one, other),
        second=pl.max_horizontal(one, other),
        won=(one < other).cast(pl.Int64),
        at=pl.col("at").cast(pl.Int64),
    )
    groups = met.group_by("first", "second")
    counted = groups.agg(pl.col("won").sum(), pl.col("at").min(), num=pl.len().cast(pl.Int64))
    return counted.select(list(_GAMES))


def add_tallies(tallies: Iterable[Tally]) -> Tally:
    """Return the sums of several parts, which are in the order of their pairs."""
    total, waiting = Tally(), list[Tally]()
    for tally in tallies:
        waiting.append(tally)
        if len(waiting) == _AT_ONCE:
            total, waiting = _sum([total, *waiting]), []
    return _sum([total, *waiting])


_AT_ONCE = 64


def _sum(tallies: Sequence[Tally]) -> Tally:
    found = [tally for tally in tallies if tally.rows]
    if len(found) < 2:
        return found[0] if found else Tally()

    features = dict.fromkeys(feature for tally in found for feature in tally.wins)
    wins = {name: [tally.of(name) for tally in found] for name in features}

    def summed(name: str, by: list[str], *first: pl.Expr) -> pl.DataFrame:
        frame: pl.DataFrame = pl.concat(getattr(tally, name) for tally in found)
        numbers = [n for n, kind in frame.schema.items() if kind == pl.Int64 and n not in by]
        sums = pl.col([n for n in numbers if n != "at"]).sum()
        return frame.group_by(by).agg(sums, *first).select(frame.columns)

    return Tally(
        sum(tally.rows for tally in found),
        found[0].at,
        summed("values", ["feature", "side", "value"]),
        {name: _add_columns(rows) for name, rows in wins.items()},
        summed("games", ["first", "second"], pl.col("at").min()),
        sum(tally.positions for tally in found),
        sum(tally.chosen_first for tally in found),
        summed(
            "names",
            ["source_index", "origin", "licence"],
            pl.col("at").explode().sort().head(EXAMPLES),
        ),
        summed("languages", ["language"], pl.col("at").min()),
    )


def _add_columns(rows: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    pairs, more, equal = (sum(column) for column in zip(*rows, strict=True))
    return pairs, more, equal
