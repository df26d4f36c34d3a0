"""Train and test, parted by prompt: the pairs of one prompt are never in both."""

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from prefdata.arrays import arrow_array


def split_groups(
    records: pa.Table, *, test_fraction: float, seed: int
) -> tuple[pa.Table, pa.Table]:
    """Train and test; a group is in test when its own hash says so.

    Each group is drawn by itself, so rows that come, go or move never change where another lies;
    the share of groups in test is `test_fraction` on average. 0 <= test_fraction <= 1.
    """
    assert 0 <= test_fraction <= 1, test_fraction
    limit = round(test_fraction * 2**64)
    key = seed.to_bytes(8, "little", signed=True)
    drawn: dict[bytes, bool] = {}
    in_test = []
    for group in records["group_id"].to_pylist():
        if group not in drawn:
            draw = blake3(key + group).digest(length=8)
            drawn[group] = int.from_bytes(draw, "little") < limit
        in_test.append(drawn[group])
    mask = arrow_array(in_test, pa.bool_())
    return records.filter(pc.invert(mask)), records.filter(mask)
