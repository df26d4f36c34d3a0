"""Limit on the decompressed size of a file of any format, against decompression bombs."""

from typing import NamedTuple

from prefdata.errors import UsageError
from prefdata.read.limits import Limits


class Budget(NamedTuple):
    """A file's size and the limits on its decompressed size."""

    name: str
    file_bytes: int
    limits: Limits

    def require(self, num_bytes: int, what: str) -> None:
        """Raise E113 if `num_bytes` is over the limits, absolute or in ratio to the file size."""
        limits = self.limits
        ratio = num_bytes / max(self.file_bytes, 1)
        if num_bytes > limits.max_output_bytes or (
            num_bytes > limits.ratio_after_bytes and ratio > limits.max_ratio
        ):
            problem = f"{what} would take {num_bytes:,} bytes or more ({ratio:,.0f} to 1)"
            raise UsageError("E113", self.name, problem, "raise limits.max_ratio if intended")
