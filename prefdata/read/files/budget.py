"""How many bytes a file may become: what a bomb of any format is measured by."""

from typing import NamedTuple

from prefdata.errors import UsageError
from prefdata.read.limits import Limits


class Budget(NamedTuple):
    """A file's size, and what its content may unpack to."""

    name: str
    file_bytes: int
    limits: Limits

    def require(self, num_bytes: int, what: str) -> None:
        """E113 where so much cannot come out of a file of this size unless it is a bomb."""
        limits = self.limits
        ratio = num_bytes / max(self.file_bytes, 1)
        if num_bytes > limits.max_output_bytes or (
            num_bytes > limits.ratio_after_bytes and ratio > limits.max_ratio
        ):
            problem = f"{what} would take {num_bytes:,} bytes or more ({ratio:,.0f} to 1)"
            raise UsageError("E113", self.name, problem, "raise limits.max_ratio if it is meant")
