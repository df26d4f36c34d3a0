"""How much the counting tests do: little in every run, all that is promised in `make stress`."""

import os

IS_FULL = os.environ.get("STRESS") == "1"


def times(few: int, many: int) -> int:
    """How many cases this run tries."""
    return many if IS_FULL else few
