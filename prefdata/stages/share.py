"""Shares of the kept records: those of one shard of a build, or of one part for a validation."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from prefdata.engine.exchange import KEY, Bucket, read_bucket, read_parts
from prefdata.stages.decide import Decisions
from prefdata.stages.set_checks import ORDER
from prefdata.stages.settle import kept_keys

Order = pl.DataFrame
"""Rows of ORDER, in the order in which a share has them."""


class OfSplit(NamedTuple):
    """Pairs of one split whose prompts have their first pairs in a range of rows."""

    decisions: Decisions
    split: int
    prompts: Bucket
    num_rows: int

    def read(self, root: Path) -> Order:
        paths = self.decisions.paths(root, "order")
        rows = read_bucket(paths, self.prompts, pl.col("final") == self.split)
        return rows.sort(KEY, "at").select(list(ORDER))


class OfPart(NamedTuple):
    """Pairs of one part."""

    decisions: Decisions
    part: int
    num_rows: int
    """Number of all rows of the part, kept or not: for a progress bar."""

    def read(self, root: Path) -> Order:
        keys = kept_keys(read_parts(root), self.decisions, self.part)
        return keys.with_columns(final=pl.lit(0, pl.UInt8)).select(list(ORDER))
