"""Pairs that say the same, or the contrary."""

from prefdata.dedup.contradictions import drop_contradictions
from prefdata.dedup.exact import DUPLICATES, drop_duplicates

__all__ = ["DUPLICATES", "drop_contradictions", "drop_duplicates"]
