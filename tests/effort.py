"""Number of cases in counting tests: few in every run, the promised number in `make stress`."""

import os

IS_FULL = os.environ.get("STRESS") == "1"


def times(few: int, many: int) -> int:
    """Return the number of cases that this run tries."""
    return many if IS_FULL else few
