"""What a build will do, before it does it: its identity, and the shards to make."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.config import BuildConfig
from prefdata.keys import GROUP
from prefdata.read import load_layout
from prefdata.shard import ShardTask
from prefdata.split import draw_test, too_large
from prefdata.store.manifest import FORMAT_VERSION
from prefdata.survey import Survey
from prefdata.text import FIELD_NAMES
from prefdata.tokens.target import Target

TOOL_VERSION = version("prefdata-dpo")


def build_identity(
    config: BuildConfig, target: Target, digests: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that decides the bytes of a build."""
    layout = load_layout(config.layout).model_dump(mode="json") if config.layout else None
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": TOOL_VERSION,
        "config": config.identity,
        "layout": layout,
        "inputs": list(digests.items()),
        "tokenizer": target.seal().model_dump(mode="json"),
        "special_tokens": target.special_tokens,
    }


def shard_tasks(found: Survey, config: BuildConfig, target: Target, root: Path) -> list[ShardTask]:
    """Records to shards: by split, the pairs of a prompt side by side and in one shard."""
    kept = _side_by_side(found)
    in_test = draw_test(
        kept["drawn_by"].to_numpy(), test_fraction=config.test_fraction, seed=config.seed
    )
    names = tuple(part.name for part in found.parts)
    fields = _fields(found)
    has_verbatim = any(part.facts.is_text for part in found.parts)
    tasks = []
    for split, mask in (("train", ~in_test), ("test", in_test)):
        rows = kept.filter(mask)
        cuts = list(_cuts(_group_ends(rows), config.shard_rows))
        for number, (start, stop) in enumerate(cuts):
            places = rows[start:stop].select("at", "part", "row")
            name = f"{split}-{number:05d}-of-{len(cuts):05d}"
            options = config.token_options
            tasks.append(
                ShardTask(root, split, name, names, places, target, options, fields, has_verbatim)
            )
    return tasks


def split_notes(found: Survey, config: BuildConfig) -> list[str]:
    """What a user should know of the split: which pairs could not go to test."""
    ids = found.decision.drawn_by[found.decision.stays]
    stuck = int(too_large(ids, test_fraction=config.test_fraction).sum())
    if not stuck or not config.test_fraction:
        return []
    return [
        f"{stuck} pairs stay in train: their prompts hang together, and are more than test should"
        " have; where they share a template, raise near_duplicates.threshold or set PD402 off"
    ]


def _side_by_side(found: Survey) -> pl.DataFrame:
    """Groups in the order of their first pairs, the pairs of each in their own order."""
    kept = found.keys.select(*GROUP, "part", "row").with_row_index("at")
    kept = kept.with_columns(drawn_by=pl.Series(found.decision.drawn_by))
    kept = kept.filter(pl.Series(found.decision.stays))
    return kept.with_columns(first=pl.col("at").first().over(GROUP)).sort("first", "at")


def _fields(found: Survey) -> tuple[str, ...]:
    """The fields of messages in the text shards; none where all of the data is verbatim text."""
    if not any(part.facts.is_chat for part in found.parts):
        return ()
    used = {name for part in found.parts for name in part.facts.fields}
    return tuple(sorted(used, key=FIELD_NAMES.index))


def _group_ends(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Where each run of one group ends."""
    ids = rows.select(*GROUP).to_numpy()
    changes = np.flatnonzero((ids[1:] != ids[:-1]).any(1)) + 1
    return np.append(changes, len(rows)) if len(rows) else changes


def _cuts(ends: NDArray[np.int64], shard_rows: int) -> Iterator[tuple[int, int]]:
    """Runs of whole groups with at most `shard_rows` rows, unless one group has more.

    Groups that end at 2, 3 and 7 in shards of 4 rows are cut at 0 to 3 and 3 to 7.
    """
    start = 0
    while start < (ends[-1] if len(ends) else 0):
        fits = int(np.searchsorted(ends, start + shard_rows, side="right"))
        first = int(np.searchsorted(ends, start, side="right"))
        stop = int(ends[max(fits - 1, first)])
        yield start, stop
        start = stop
