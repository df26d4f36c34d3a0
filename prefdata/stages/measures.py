"""Dataset-level statistics of the kept pairs: biases, sources, languages, leaks of splits."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from prefdata.check.rows.profile import FEATURES
from prefdata.check.sets.bias import MIN_PAIRS
from prefdata.check.sets.statistics import area_under_curve
from prefdata.hashing import Numbers
from prefdata.records.keys import GROUP_ID
from prefdata.report.model import Bias, SourceShare, SplitProof

MOST_SOURCES = 20
_MEASURED = {"chars": "length", **{name: name for name in FEATURES}}
_COMMON = 0.02  # of the pairs: a language that fewer have may be a mistake


def measure_biases(profile: pl.DataFrame) -> list[Bias]:
    """Return how well length and each format feature predict which side is chosen.

    A feature is measured on the pairs whose sides differ in it, length on all pairs.
    """
    found = []
    for column, name in _MEASURED.items():
        sides = [f"{column}_chosen", f"{column}_rejected"]
        rows = profile.select(pl.col(sides).cast(pl.Int64))
        if column != "chars":
            rows = rows.filter(pl.col(sides[0]) != pl.col(sides[1]))
        if len(rows) < MIN_PAIRS:
            continue
        chosen, rejected = (rows[side].to_numpy() for side in sides)
        area = area_under_curve(chosen, rejected)
        more = float(((np.sign(chosen - rejected) + 1) / 2).mean())
        what = "longer" if column == "chars" else f"richer in {name}"
        found.append(
            Bias(
                name=name,
                auc=round(area.value, 6),
                low=round(area.low, 6),
                high=round(area.high, 6),
                pairs=len(rows),
                sentence=f"Chosen is {what} in {more:.1%} of the pairs, equal ones counted half.",
            )
        )
    return found


def measure_sources(
    profile: pl.DataFrame, source_index: pl.Series, names: Mapping[int, str]
) -> list[SourceShare]:
    """Count pairs by the origin that rows name, or else by file."""
    files = source_index.cast(pl.Int64).replace_strict(dict(names), return_dtype=pl.String)
    frame = profile.select(pl.col("origin", "licence").cast(pl.String)).with_columns(file=files)
    counted = (
        frame.select("licence", name=pl.coalesce("origin", "file"))
        .group_by("name", "licence")
        .len()
        .sort("len", "name", descending=[True, False])
    )
    return [
        SourceShare(name=name, pairs=pairs, share=round(pairs / len(frame), 6), licence=licence)
        for name, licence, pairs in counted.head(MOST_SOURCES)
        .select("name", "licence", "len")
        .iter_rows()
    ]


def measure_languages(profile: pl.DataFrame) -> list[str]:
    """Return the languages of the prompts, the most frequent first."""
    known = profile["language"].cast(pl.String)
    counted = known.filter(known != "").value_counts(sort=True)
    return [str(name) for name, num in counted.iter_rows() if num >= _COMMON * len(profile)]


def prove_splits(
    keys: pl.DataFrame, split_key: Numbers, rows: Mapping[str, Sequence[int]], *, words: int,
    threshold: float,
) -> SplitProof:  # fmt: skip
    """Count the clusters of near-duplicate prompts, and those that are in two splits.

    `split_key` is the cluster of each row of `keys`; `rows` are the indices of each split's rows.
    """
    splits = pl.concat(
        pl.DataFrame({"at": pl.Series(list(places), dtype=pl.Int64)}).with_columns(
            split=pl.lit(name)
        )
        for name, places in rows.items()
    )
    at = splits["at"]
    prompts = keys.select(GROUP_ID)[at].with_columns(
        splits["split"], cluster=pl.Series(split_key)[at]
    )
    clusters = prompts.group_by("cluster").agg(
        pl.col("split").n_unique(), size=pl.struct(GROUP_ID).n_unique()
    )
    return SplitProof(
        threshold=threshold,
        unit=f"word {words}-grams",
        leaked=int((clusters["split"] > 1).sum()),
        clusters=len(clusters),
        largest=int(clusters["size"].max() or 0),  # type: ignore[arg-type]
    )
