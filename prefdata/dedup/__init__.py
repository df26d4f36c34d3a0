"""Duplicate pairs and contradictory pairs."""

from prefdata.dedup.contradictions import find_contradictions
from prefdata.dedup.exact import find_copies

__all__ = ["find_contradictions", "find_copies"]
