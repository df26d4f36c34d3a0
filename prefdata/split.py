"""Train and test, parted by prompt: neither a prompt nor a near-duplicate of it is in both."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from prefdata.mix import Numbers, mix


class Families(NamedTuple):
    """What each row's split is drawn by, and the prompts that are too many to be drawn as one."""

    ids: Numbers
    num_parted: int
    """Prompts of such families."""


def families_of(groups: Numbers, clusters: NDArray[np.uint32], *, test_fraction: float) -> Families:
    """The smallest id of the prompts that a row's prompt hangs together with.

    A family of more than two prompts, and of more than half of what test should have, is parted:
    prompts of one template may all hang together, and would fill test or leave it empty.
    """
    rows = pl.DataFrame({"group": groups, "cluster": clusters})
    room = max(2.0, test_fraction * rows["group"].n_unique() / 2)
    rows = rows.with_columns(
        fits=pl.col("group").n_unique().over("cluster") <= room,
        smallest=pl.col("group").min().over("cluster"),
    )
    ids = rows.select(pl.when("fits").then("smallest").otherwise("group").alias("id"))["id"]
    return Families(ids.to_numpy(), rows.filter(~pl.col("fits"))["group"].n_unique())


def draw_test(groups: Numbers, *, test_fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are in test, by the id of their group; 0 <= test_fraction <= 1.

    A group is a prompt, or prompts that are near-duplicates, under the smallest of their ids. Each
    is drawn by itself, so rows that come, go or move never change where another group lies; the
    share of groups in test is `test_fraction` on average.
    """
    assert 0 <= test_fraction <= 1, test_fraction
    key = mix(np.array([seed], np.uint64))
    limit = round(test_fraction * 2**64)
    if limit == 2**64:
        return np.ones(len(groups), np.bool_)
    return mix(groups ^ key) < np.uint64(limit)
