"""What two splits have in common: PD501, PD502 and PD504.

Frames have the columns of `keys.KEYS` and of PROFILE, `at`, `split` (text; null: in none), and,
where near-duplicates were looked for, `cluster`.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath

import polars as pl

from prefdata.check.found import SetFinding, about_rows
from prefdata.keys import GROUP

_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "eval", "evaluation", "heldout"), "test"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "validation"),
}


def split_of_name(name: str) -> str | None:
    """The split that a file's name says it is.

    >>> split_of_name("data/train-00000-of-00002.parquet"), split_of_name("trainer.jsonl")
    ('train', None)
    """
    words = re.findall(r"[a-z]+", PurePath(name).name.lower())
    return next((_NAMES[word] for word in words if word in _NAMES), None)


def find_leaks(frame: pl.DataFrame) -> list[SetFinding]:
    """Prompts, near prompts and threads that are in more than one split."""
    frame = frame.filter(pl.col("split").is_not_null())
    same = _shared(frame, GROUP)
    found = about_rows("PD501", same["at"], _say(same, "prompts", GROUP), _numbers(same, GROUP))
    if "cluster" in frame.columns:
        near = _shared(frame.filter(pl.col("cluster").is_not_null()), ["cluster"])
        near = near.join(same, on="at", how="anti")
        found += about_rows("PD502", near["at"], _say(near, "clusters of prompts", ["cluster"]))
    threads = _shared(frame.filter(pl.col("thread") != 0), ["thread"])
    return found + about_rows("PD504", threads["at"], _say(threads, "threads", ["thread"]))


def _shared(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Rows whose key is in several splits."""
    return frame.filter(pl.col("split").n_unique().over(key) > 1)


def _numbers(rows: pl.DataFrame, key: Sequence[str]) -> dict[str, float]:
    return {"prompts": rows.select(key).n_unique() if len(rows) else 0}


def _say(rows: pl.DataFrame, what: str, key: Sequence[str]) -> str:
    if not len(rows):
        return ""
    splits = ", ".join(rows["split"].unique().sort())
    return f"{what} in more than one of {splits}: {rows.select(key).n_unique():,}"
